//! From the text of `/proc/<pid>/cgroup` to the container a process runs in. Pure.
//!
//! The path above a pod's cgroup is the kubelet's and the runtime's; everything below a container's may
//! be the container's own work. So the outermost pod and the container directly below it count, and
//! a second, different one anywhere refuses the whole text. No prefix is asked for: seen from inside a
//! pod, paths begin with `/../..` (cgroups(7), "Cgroup namespaces").

use std::fmt;

/// Longest text that is read. A line has a path of at most 4 KiB, a file a dozen lines.
pub const MAX_TEXT: usize = 64 * 1024;

/// Uid of a pod, as the API server makes them (RFC 9562).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodUid(u128);

impl PodUid {
    /// Reads `8-4-4-4-12` lower-case hexadecimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::separated(text, '-')
    }

    fn separated(text: &str, separator: char) -> Option<Self> {
        let mut groups = text.split(separator);
        let mut digits = String::with_capacity(32);
        for length in [8, 4, 4, 4, 12] {
            let group = groups.next().filter(|group| group.len() == length)?;
            digits.push_str(group);
        }
        (groups.next().is_none() && is_hex(&digits))
            .then(|| u128::from_str_radix(&digits, 16).ok().map(Self))
            .flatten()
    }
}

impl fmt::Display for PodUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e] = [(96, 8), (80, 4), (64, 4), (48, 4), (0, 12)]
            .map(|(shift, digits)| (self.0 >> shift) & ((1 << (4 * digits)) - 1));
        write!(f, "{a:08x}-{b:04x}-{c:04x}-{d:04x}-{e:012x}")
    }
}

impl fmt::Debug for PodUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Id of a container, as every runtime behind the CRI makes them: 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerId([u128; 2]);

impl ContainerId {
    /// Reads 64 lower-case hexadecimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 64 || !is_hex(text) {
            return None;
        }
        let (high, low) = text.split_at(32);
        let half = |text| u128::from_str_radix(text, 16).ok();
        Some(Self([half(high)?, half(low)?]))
    }

    /// Reads an id as container statuses show them, behind the runtime's name: `containerd://…`.
    #[must_use]
    pub fn of_status(text: &str) -> Option<Self> {
        Self::parse(text.split_once("://")?.1)
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self([high, low]) = self;
        write!(f, "{high:032x}{low:032x}")
    }
}

impl fmt::Debug for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A container of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Container {
    /// Its pod.
    pub pod: PodUid,
    /// Its id.
    pub id: ContainerId,
}

/// Why no container can be told from a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CgroupError {
    /// Longer than [`MAX_TEXT`].
    #[error("the list of cgroups is longer than {MAX_TEXT} bytes")]
    TooLong,
    /// A line is not `id:controllers:/path` in UTF-8.
    #[error("line {line} is not of the form id:controllers:/path")]
    Malformed {
        /// Which, from 1.
        line: usize,
    },
    /// Two pods.
    #[error("the cgroups name two pods, {0} and {1}")]
    SeveralPods(PodUid, PodUid),
    /// Two containers.
    #[error("the cgroups name two containers, {0} and {1}")]
    SeveralContainers(ContainerId, ContainerId),
    /// A pod, and no container of it: a helper of the runtime's.
    #[error("the process belongs to pod {0} and to none of its containers")]
    NoContainer(PodUid),
    /// A pod that the kubelet read from a file. The API server shows it under another uid and without an account.
    #[error("the process belongs to a static pod, which has no service account")]
    StaticPod,
    /// What looks like a pod lies below a user's session, where that user may make any cgroup.
    #[error("the cgroup lies below a user's session")]
    Delegated,
}

impl CgroupError {
    /// A stable word.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::TooLong | Self::Malformed { .. } => "cgroup_malformed",
            Self::SeveralPods(..) | Self::SeveralContainers(..) => "cgroup_ambiguous",
            Self::NoContainer(_) => "no_container",
            Self::StaticPod => "static_pod",
            Self::Delegated => "cgroup_delegated",
        }
    }
}

/// The container that the process of this text runs in; none outside any pod.
///
/// # Errors
/// A [`CgroupError`]: a process that is to get nothing.
pub fn parse(text: &[u8]) -> Result<Option<Container>, CgroupError> {
    if text.len() > MAX_TEXT {
        return Err(CgroupError::TooLong);
    }
    let mut found = Found::default();
    let lines = text
        .strip_suffix(b"\n")
        .unwrap_or(text)
        .split(|byte| *byte == b'\n');
    for (index, line) in lines.enumerate() {
        let malformed = CgroupError::Malformed { line: index + 1 };
        let path = path_of(line).ok_or(malformed)?;
        found.merge(&in_path(path, malformed)?)?;
    }
    match (found.pod, found.id) {
        (None, _) => Ok(None),
        (Some(pod), Some(id)) => Ok(Some(Container { pod, id })),
        (Some(pod), None) => Err(CgroupError::NoContainer(pod)),
    }
}

/// The path of `hierarchy-ID:controller-list:cgroup-path` (cgroups(7)).
fn path_of(line: &[u8]) -> Option<&str> {
    let mut parts = std::str::from_utf8(line).ok()?.splitn(3, ':');
    let id = parts.next()?;
    let _controllers = parts.next()?;
    let path = parts.next()?;
    (!id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit()) && path.starts_with('/')).then_some(path)
}

/// What a path, or several, tell.
#[derive(Clone, Copy, Debug, Default)]
struct Found {
    pod: Option<PodUid>,
    id: Option<ContainerId>,
}

impl Found {
    fn merge(&mut self, other: &Self) -> Result<(), CgroupError> {
        other.pod.map_or(Ok(()), |pod| self.set_pod(pod))?;
        other.id.map_or(Ok(()), |id| self.set_id(id))
    }

    fn set_pod(&mut self, pod: PodUid) -> Result<(), CgroupError> {
        match self.pod.replace(pod) {
            Some(first) if first != pod => Err(CgroupError::SeveralPods(first, pod)),
            _ => Ok(()),
        }
    }

    fn set_id(&mut self, id: ContainerId) -> Result<(), CgroupError> {
        match self.id.replace(id) {
            Some(first) if first != id => Err(CgroupError::SeveralContainers(first, id)),
            _ => Ok(()),
        }
    }
}

/// What one path tells, from the outside in.
fn in_path(path: &str, malformed: CgroupError) -> Result<Found, CgroupError> {
    let mut found = Found::default();
    let mut previous = Segment::Up;
    let mut delegated = false;
    let mut id_is_of_pod = false;
    for text in path.split('/').skip(1) {
        let segment = Segment::of(text);
        match segment {
            // A path relative to our own root begins with them; they stand nowhere else.
            Segment::Up if !matches!(previous, Segment::Up) => return Err(malformed),
            Segment::Up | Segment::Other => {}
            Segment::Session => delegated |= found.pod.is_none(),
            Segment::StaticPod => return Err(CgroupError::StaticPod),
            Segment::Pod(pod) => found.set_pod(pod)?,
            Segment::Container(id) => {
                found.set_id(id)?;
                id_is_of_pod |= matches!(previous, Segment::Pod(_));
            }
            Segment::Both(pod, id) => {
                found.set_pod(pod)?;
                found.set_id(id)?;
                id_is_of_pod = true;
            }
        }
        previous = segment;
    }
    match found.pod {
        Some(_) if delegated => Err(CgroupError::Delegated),
        Some(pod) if !id_is_of_pod => Ok(Found {
            pod: Some(pod),
            id: None,
        }),
        Some(_) => Ok(found),
        // A container, but of no pod: somebody else's.
        None => Ok(Found::default()),
    }
}

/// One segment of a path.
#[derive(Clone, Copy, Debug)]
enum Segment {
    /// `..`
    Up,
    /// Below it a user may make cgroups of any name (systemd's delegation).
    Session,
    Pod(PodUid),
    StaticPod,
    Container(ContainerId),
    /// `<slice of the pod>:<runtime>:<container>`, which runc makes of a systemd path when it is told to use
    /// plain cgroups.
    Both(PodUid, ContainerId),
    Other,
}

impl Segment {
    fn of(text: &str) -> Self {
        if text == ".." {
            return Self::Up;
        }
        if text == "user.slice" || text.starts_with("user@") {
            return Self::Session;
        }
        let mut parts = text.splitn(3, ':');
        if let (Some(slice), Some(_runtime), Some(id)) = (parts.next(), parts.next(), parts.next()) {
            return match (Self::pod(slice), ContainerId::parse(id)) {
                (Self::Pod(pod), Some(id)) => Self::Both(pod, id),
                (Self::StaticPod, Some(_)) => Self::StaticPod,
                _ => Self::Other,
            };
        }
        match Self::pod(text) {
            Self::Other => Self::container(text),
            pod => pod,
        }
    }

    /// `pod<uid>`, or `<parents>-pod<uid>.slice` with underscores in the uid.
    fn pod(text: &str) -> Self {
        let (name, separator) = match text.strip_suffix(".slice") {
            Some(slice) => (slice, '_'),
            None => (text, '-'),
        };
        let Some((parents, uid)) = name.rsplit_once("pod") else {
            return Self::Other;
        };
        let nested = parents.ends_with('-') && separator == '_';
        if !parents.is_empty() && !nested {
            return Self::Other;
        }
        if let Some(pod) = PodUid::separated(uid, separator).or_else(|| PodUid::parse(uid)) {
            return Self::Pod(pod);
        }
        if uid.len() == 32 && is_hex(uid) {
            return Self::StaticPod;
        }
        Self::Other
    }

    /// `<id>`, `<runtime>-<id>` or `<runtime>-<id>.scope`; not the runtime's own process beside it.
    fn container(text: &str) -> Self {
        let name = text.strip_suffix(".scope").unwrap_or(text);
        let (runtime, id) = name.rsplit_once('-').unwrap_or(("", name));
        match ContainerId::parse(id) {
            Some(id) if !runtime.ends_with("conmon") => Self::Container(id),
            _ => Self::Other,
        }
    }
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests;
