//! The `proximity` binary.

fn main() -> std::process::ExitCode {
    proximity_server::cli::main()
}
