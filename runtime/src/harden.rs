//! What a process that holds keys does first. Each step is best effort and tells what it could not do.

use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};

/// Makes the process leave no core file and refuse tracers of the same user, and raises the soft limit
/// of descriptors to the hard one. Returns a sentence for each step that failed.
#[must_use]
pub fn process() -> Vec<String> {
    let mut faults = Vec::new();
    if let Err(e) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        faults.push(format!("memory stays readable to tracers of this user: {e}"));
    }
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    if let Err(e) = setrlimit(Resource::Core, none) {
        faults.push(format!("core files stay enabled: {e}"));
    }
    let files = getrlimit(Resource::Nofile);
    if let Err(e) = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: files.maximum,
            maximum: files.maximum,
        },
    ) {
        faults.push(format!("descriptor limit stays at {:?}: {e}", files.current));
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::dumpable_behavior;

    #[test]
    fn the_process_leaves_no_core_cannot_be_traced_and_has_all_its_descriptors() {
        assert_eq!(process(), Vec::<String>::new());
        let core = getrlimit(Resource::Core);
        assert_eq!((core.current, core.maximum), (Some(0), Some(0)));
        assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
        let files = getrlimit(Resource::Nofile);
        assert_eq!(files.current, files.maximum);
        assert_eq!(process(), Vec::<String>::new(), "again");
    }
}
