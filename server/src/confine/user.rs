//! Becomes another user, for good.

use std::ffi::{CStr, CString};
use std::io;

use super::note;
use crate::exit::Failure;

/// A user, and the user's groups.
struct User {
    uid: libc::uid_t,
    gid: libc::gid_t,
    groups: Vec<libc::gid_t>,
}

/// Becomes the user that `name` names, on every thread. Call it before the first ring.
///
/// # Errors
/// There is no such user, or the process may not become that user.
pub(crate) fn become_user(name: &str) -> Result<(), Failure> {
    let user = find(name)?;
    let failed = |what: &str, error: io::Error| {
        Failure::input(format!(
            "cannot become user {name} ({what}): {error}; start as root, or leave --user out"
        ))
    };
    // SAFETY: the pointer and the number belong to one vector, which the C library only reads. These three
    // calls change the process as a whole (nptl(7)), and nothing in this program has stored the old user.
    unsafe {
        if libc::setgroups(user.groups.len(), user.groups.as_ptr()) != 0 {
            return Err(failed("setgroups", io::Error::last_os_error()));
        }
        if libc::setresgid(user.gid, user.gid, user.gid) != 0 {
            return Err(failed("setresgid", io::Error::last_os_error()));
        }
        if libc::setresuid(user.uid, user.uid, user.uid) != 0 {
            return Err(failed("setresuid", io::Error::last_os_error()));
        }
    }
    // The change has made /proc/self root's (PR_SET_DUMPABLE in prctl(2)), and the report reads it.
    if let Err(errno) = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::Dumpable) {
        tracing::warn!(%errno, "the report cannot inspect this process");
    }
    note(format!("user: {name}, uid {}, gid {}, {} groups", user.uid, user.gid, user.groups.len()));
    Ok(())
}

fn find(name: &str) -> Result<User, Failure> {
    if let Ok(uid) = name.parse() {
        return Ok(User { uid, gid: uid, groups: vec![uid] });
    }
    let none = || Failure::input(format!("there is no user {name}; name one of /etc/passwd, or a number"));
    let text = CString::new(name).map_err(|_| none())?;
    let mut buffer = vec![0; 16 << 10];
    let mut entry = std::mem::MaybeUninit::<libc::passwd>::uninit();
    let mut found = std::ptr::null_mut();
    // SAFETY: entry and buffer live across the call, and the length is the buffer's. If `found` points to
    // anything, it is the entry, whose texts are in the buffer. Only numbers are taken out of it.
    let (uid, gid) = unsafe {
        let errno = libc::getpwnam_r(
            text.as_ptr(),
            entry.as_mut_ptr(),
            buffer.as_mut_ptr(),
            buffer.len(),
            &mut found,
        );
        if errno != 0 || found.is_null() {
            return Err(none());
        }
        ((*found).pw_uid, (*found).pw_gid)
    };
    Ok(User { uid, gid, groups: groups_of(&text, gid) })
}

/// All groups of a user, at least the user's own.
fn groups_of(name: &CStr, gid: libc::gid_t) -> Vec<libc::gid_t> {
    let mut groups = vec![gid; 256];
    let mut count = groups.len() as libc::c_int;
    // SAFETY: the vector has as many entries as `count` says, and both live across the call.
    let found = unsafe { libc::getgrouplist(name.as_ptr(), gid, groups.as_mut_ptr(), &mut count) };
    match usize::try_from(count) {
        Ok(count) if found >= 0 => groups.truncate(count),
        _ => groups.truncate(1),
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_by_name_and_number() {
        let root = find("root").unwrap();
        assert_eq!((root.uid, root.gid), (0, 0));
        assert!(root.groups.contains(&0));
        assert_eq!(find("4711").unwrap().groups, [4711]);
        for name in ["no-such-user", "", "a\0b"] {
            assert!(find(name).is_err(), "{name:?}");
        }
    }
}
