#!/bin/sh
# Stands in for Docker's build plugin where that cannot be downloaded.
case "$1" in
  docker-cli-plugin-metadata)
    echo '{"SchemaVersion":"0.1.0","Vendor":"test","Version":"v0.0.0","ShortDescription":"stand-in"}' ;;
  *) echo "stand-in v0.0.0" ;;
esac
