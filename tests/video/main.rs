//! The transcoder from outside: clips made by the `ffmpeg` command, one request to `jobsd-video`, its lines, its files.
#![cfg(feature = "video")]

mod bad_input;
mod clips;
mod harness;
mod interruption;
mod requests;
mod thumbnails;
mod transcoding;
