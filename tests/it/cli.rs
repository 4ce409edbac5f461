//! The command line, run as a program.

mod doctor;
mod live;
mod observe;
mod process;
mod settings;
