//! What a process takes of the machine's memory, as the kernel counts it.

/// The most that a process ever took at once, in MiB.
#[must_use]
pub fn peak_mib(pid: i32) -> u64 {
    field(pid, "VmHWM:")
}

/// What it takes now, in MiB.
#[must_use]
pub fn current_mib(pid: i32) -> u64 {
    field(pid, "VmRSS:")
}

fn field(pid: i32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1024
}
