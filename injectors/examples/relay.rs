//! A relay as a process, for measurements: the configuration comes on standard input, see `injectors::relay`.

fn main() -> std::io::Result<()> {
    injectors::relay::main_blocking()
}
