#!/usr/bin/perl
# Stands in for the orchestrator where a test looks at the container around it: says who
# it is and whether Docker answers, answers every HTTP request, ends well on TERM.
use strict;
use warnings;
use IO::Socket::INET;

$| = 1;
$SIG{TERM} = sub { print "terminated\n"; exit 0 };

print "Pid: $$\nArguments: @ARGV\n";
open my $status, '<', '/proc/self/status' or die $!;
while (<$status>) { print if /^(Uid|Gid|Groups|NoNewPrivs|Cap\w+):/ }
my $socket = $ENV{DOCKER_SOCKET} // '/var/run/docker.sock';
print 'Docker: ', `curl -s -m 5 --unix-socket $socket http://docker/_ping`, "\n";

my $server = IO::Socket::INET->new(Listen => 5, LocalAddr => '0.0.0.0', LocalPort => 8080)
    or die $!;
print "ready\n";
while (1) {
    my $client = $server->accept or next;
    while (defined(my $line = <$client>)) { last if $line =~ /^\r?$/ }
    print $client "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok";
    close $client;
}
