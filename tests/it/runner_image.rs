//! The runner's image, built by its Dockerfile and used as the orchestrator uses it.

mod attacks;
mod docker_inside;
mod exits;
mod image;
mod made;
mod runner;
