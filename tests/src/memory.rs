//! What a process takes of the machine's memory, as the kernel counts it.

/// The most that a process ever took at once, in MiB; none once it has ended.
#[must_use]
pub fn peak_mib_while_running(pid: i32) -> Option<u64> {
    field(pid, "VmHWM:")
}

/// As [`peak_mib_while_running`], of a process that runs.
#[must_use]
pub fn peak_mib(pid: i32) -> u64 {
    field(pid, "VmHWM:").unwrap()
}

/// What a process that runs takes now, in MiB.
#[must_use]
pub fn current_mib(pid: i32) -> u64 {
    field(pid, "VmRSS:").unwrap()
}

fn field(pid: i32, name: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? / 1024)
}
