//! What is read of `/proc/<pid>/stat` and `/proc/<pid>/status` (proc(5)). Pure.

use super::process::ProcessError;

/// When a process began, in clock ticks since the machine did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start(u64);

/// Effective user and group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// Start of the process whose `stat` this is.
///
/// # Errors
/// [`ProcessError::Ended`] for one that has ended and is not yet reaped.
pub fn start(stat: &[u8]) -> Result<Start, ProcessError> {
    const MALFORMED: ProcessError = ProcessError::Malformed("stat");
    // The name in parentheses is the process's own choice: whatever it holds, the last one closes it.
    let after = stat.iter().rposition(|byte| *byte == b')').ok_or(MALFORMED)?;
    let rest = std::str::from_utf8(stat.get(after + 1..).unwrap_or_default()).map_err(|_| MALFORMED)?;
    // Fields are counted from 1, with the name as the second: state 3, threads 20, start 22.
    let field = |number: usize| rest.split_ascii_whitespace().nth(number - 3).ok_or(MALFORMED);
    let number = |at: usize| field(at)?.parse::<u64>().map_err(|_| MALFORMED);
    match field(3)? {
        "X" | "x" => return Err(ProcessError::Ended),
        // The first thread has ended; the process has when it was the last.
        "Z" if number(20)? <= 1 => return Err(ProcessError::Ended),
        _ => {}
    }
    Ok(Start(number(22)?))
}

/// Owner of the process whose `status` this is.
///
/// # Errors
/// [`ProcessError::Malformed`].
pub fn owner(status: &[u8]) -> Result<Owner, ProcessError> {
    // Real, effective, saved, of the file system.
    let effective = |key| {
        let found = line(status, key).and_then(|values| values.split_ascii_whitespace().nth(1)?.parse().ok());
        found.ok_or(ProcessError::Malformed("status"))
    };
    Ok(Owner {
        uid: effective("Uid:")?,
        gid: effective("Gid:")?,
    })
}

/// In how many process namespaces, from the table's own inwards, the process of this `status` has a number.
#[must_use]
pub fn namespaces(status: &[u8]) -> Option<usize> {
    line(status, "NSpid:").map(|values| values.split_ascii_whitespace().count())
}

/// The values behind a key at the beginning of a line. The name of the process cannot forge one: the
/// kernel escapes its line ends.
fn line<'a>(status: &'a [u8], key: &str) -> Option<&'a str> {
    let line = status
        .split(|byte| *byte == b'\n')
        .find_map(|line| line.strip_prefix(key.as_bytes()))?;
    std::str::from_utf8(line).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(name: &str, state: &str, threads: u32) -> Vec<u8> {
        format!(
            "42 ({name}) {state} 1 42 42 0 -1 4194560 90 0 0 0 1 2 3 4 20 0 {threads} 0 123456 1000 5 6\n"
        )
        .into_bytes()
    }

    #[test]
    fn the_start_is_found_behind_any_name() {
        for name in [
            "sleep",
            "a b",
            ") R 1 1",
            "((",
            "x) Z 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 1 0 7",
            "\n",
        ] {
            assert_eq!(start(&stat(name, "S", 3)).unwrap(), Start(123_456), "{name:?}");
        }
        let mut bytes = stat("x", "R", 1);
        bytes[4] = 0xff;
        assert_eq!(start(&bytes).unwrap(), Start(123_456));
    }

    #[test]
    fn a_process_that_ended_is_not_alive() {
        assert!(matches!(start(&stat("x", "Z", 1)), Err(ProcessError::Ended)));
        assert!(matches!(start(&stat("x", "X", 1)), Err(ProcessError::Ended)));
        // Its first thread left the others behind.
        assert!(start(&stat("x", "Z", 2)).is_ok());
    }

    #[test]
    fn effective_ids_are_read_and_a_name_forges_none() {
        let status = b"Name:\tx\\nUid:\t0\nUmask:\t0022\nUid:\t1000\t1001\t1002\t1003\nGid:\t5\t6\t7\t8\nNSpid:\t42\t1\n";
        assert_eq!(owner(status).unwrap(), Owner { uid: 1001, gid: 6 });
        assert_eq!(namespaces(status), Some(2));
    }

    #[test]
    fn texts_cut_anywhere_end_well() {
        let whole = stat("x", "S", 1);
        for length in 0..40 {
            assert!(
                matches!(start(&whole[..length]), Err(ProcessError::Malformed("stat"))),
                "{length}"
            );
        }
        assert!(matches!(
            owner(b"Uid:\t1\n"),
            Err(ProcessError::Malformed("status"))
        ));
        assert_eq!(namespaces(b""), None);
    }

    #[test]
    fn our_own_files_are_read() {
        let this = std::fs::read("/proc/self/stat").unwrap();
        assert!(start(&this).is_ok());
        assert_eq!(
            owner(&std::fs::read("/proc/self/status").unwrap()).unwrap().uid,
            rustix::process::geteuid().as_raw()
        );
    }
}
