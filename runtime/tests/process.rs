//! Children: started, talked to, waited for, killed, left alone.

mod common;

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use annulus::process::{output, spawn};
use annulus::signal::Signal;
use annulus::{ErrorKind, cores};
use common::on_one_core;

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

/// More than a pipe holds each way at the same time. Seen to fail: with one pipe read after the other.
#[test]
fn what_a_child_writes_is_read_to_the_end_from_both_pipes() {
    on_one_core(|| async {
        let said = output(shell("head -c 300000 /dev/zero >&2; head -c 200000 /dev/zero; exit 3")).await?;
        assert_eq!((said.stdout.len(), said.stderr.len(), said.status.code()), (200_000, 300_000, Some(3)));
        let nothing = output(Command::new("cat")).await?;
        assert!(nothing.status.success() && nothing.stdout.is_empty(), "there is nothing to read");
        let missing = output(Command::new("/nonexistent/program")).await.unwrap_err();
        assert!(missing.kind() == ErrorKind::Io && missing.to_string().contains("/nonexistent/program"));
        Ok(())
    });
}

#[test]
fn a_child_is_talked_to_and_ends_with_what_it_reads() {
    on_one_core(|| async {
        let mut command = Command::new("cat");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = spawn(command).await?;
        assert!(child.id().is_some() && child.try_wait()?.is_none());
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        input.write_all("ping").await?;
        assert_eq!(output.read(Vec::with_capacity(10)).await?.1, b"ping");
        drop(input);
        assert!(child.wait().await?.success());
        assert_eq!((child.id(), child.wait().await?), (None, child.try_wait()?.unwrap()));
        let mut command = Command::new("cat");
        command.stdin(Stdio::piped());
        // Its input is closed by the wait.
        assert!(spawn(command).await?.wait().await?.success());
        Ok(())
    });
}

/// Seen to fail: with a drop that leaves the child to nobody, a zombie stays.
#[test]
fn a_child_ends_by_a_signal_by_its_own_and_when_it_is_dropped() {
    on_one_core(|| async {
        let mut child = spawn(shell("exec sleep 1000")).await?;
        child.signal(Signal::TERMINATE)?;
        assert_eq!(child.wait().await?.signal(), Some(libc::SIGTERM));
        let mut child = spawn(shell("exec sleep 1000")).await?;
        child.kill()?;
        assert_eq!(child.wait().await?.signal(), Some(libc::SIGKILL));
        let mut child = spawn(shell("exec sleep 1000")).await?;
        child.kill_on_drop(true);
        let id = child.id().unwrap();
        drop(child);
        let left = spawn(shell("exit 0")).await?;
        let other = left.id().unwrap();
        drop(left);
        // Its core has waited for both when nothing of this number is a child of ours any more.
        for id in [id, other] {
            let pid = rustix::process::Pid::from_raw(id as i32).unwrap();
            let is_child = || {
                let options = rustix::process::WaitIdOptions::EXITED
                    | rustix::process::WaitIdOptions::NOHANG
                    | rustix::process::WaitIdOptions::NOWAIT;
                rustix::process::waitid(rustix::process::WaitId::Pid(pid), options).is_ok()
            };
            while is_child() {
                annulus::time::sleep(std::time::Duration::from_millis(1)).await;
            }
        }
        Ok(())
    });
}

/// The core has one CPU; where there are several nodes, the thread that starts the child has those of one.
#[test]
fn a_child_has_the_cpus_of_the_process_and_no_blocked_signal() {
    on_one_core(|| async {
        let said = output(shell("grep -E '^(Cpus_allowed_list|SigBlk)' /proc/self/status")).await?;
        let said = String::from_utf8(said.stdout).unwrap();
        let ours = annulus::numa::thread::affinity_of_process().unwrap();
        assert!(said.contains(&format!("Cpus_allowed_list:\t{ours}\n")), "{said}: ours are {ours}");
        assert!(said.contains("SigBlk:\t0000000000000000"), "{said}");
        assert_eq!(cores::count(), 1);
        Ok(())
    });
}

/// Seen to fail: with a child that is not killed by the thread that started it for nobody.
#[test]
fn a_start_that_nobody_waits_for_is_ended() {
    on_one_core(|| async {
        // On a busy machine the thread may be done before the poll is. Then nobody has to give up, and one
        // more is started.
        let reader = loop {
            let (reader, writer) = std::io::pipe().unwrap();
            let mut command = shell("exec sleep 1000");
            command.stdout(writer);
            let mut start = std::pin::pin!(spawn(command));
            let waker = std::task::Waker::noop();
            if start.as_mut().poll(&mut std::task::Context::from_waker(waker)).is_pending() {
                break reader;
            }
        };
        // The last that has the other end is the child.
        let reader = annulus::pipe::PipeReader::from_fd(reader.into())?;
        assert_eq!(reader.read(Vec::with_capacity(10)).await?.0, 0);
        Ok(())
    });
}
