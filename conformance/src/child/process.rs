//! A child process, seen from its parent.

use std::process::{ExitStatus, Stdio};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};

use super::{Job, VARIABLE, WATCHED, jobs, orders};
use crate::context::Cx;
use crate::power::Recording;
use crate::target::TargetError;
use crate::verdict::{Failure, Verdict};

/// A running child. Dropping it kills the process.
pub(crate) struct Process {
    child: Child,
    /// Kept open: the child exits when its standard input ends.
    input: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    errors: ChildStderr,
}

/// Runs a child on the case's store to its end, and records what it did to the store's files.
pub(crate) async fn watched(cx: &Cx, job: Job) -> Verdict<Recording> {
    let mut command = command(cx, job)?;
    command.env(WATCHED, "");
    Ok(cx.instance().record(command).await?)
}

fn command(cx: &Cx, job: Job) -> Result<std::process::Command, TargetError> {
    let mut command = std::process::Command::new(std::env::current_exe()?);
    command.env(VARIABLE, orders(cx.target().name(), job, &cx.instance().address()?));
    Ok(command)
}

impl Process {
    /// Starts a child on the case's store. [`ready`](Self::ready) waits until the store is open.
    pub(crate) fn start(cx: &Cx, job: Job) -> Verdict<Self> {
        Ok(Self::spawn(cx, job)?)
    }

    fn spawn(cx: &Cx, job: Job) -> Result<Self, TargetError> {
        let mut child = Command::from(command(cx, job)?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let missing = "a child without pipes";
        let input = child.stdin.take().ok_or(missing)?;
        let lines = BufReader::new(child.stdout.take().ok_or(missing)?).lines();
        let errors = child.stderr.take().ok_or(missing)?;
        Ok(Self { child, input, lines, errors })
    }

    /// The next line that the child writes; `None` once it has ended.
    pub(crate) async fn line(&mut self) -> Verdict<Option<String>> {
        Ok(self.lines.next_line().await.map_err(TargetError::from)?)
    }

    /// Waits until the child has opened the store.
    pub(crate) async fn ready(&mut self) -> Verdict {
        match self.line().await? {
            Some(line) if line == jobs::READY => Ok(()),
            other => Err(self.failure(&format!("{:?} from a child", jobs::READY), other).await),
        }
    }

    /// Sends a line to the child, and waits for its answer.
    pub(crate) async fn ask(&mut self, line: &str) -> Verdict<String> {
        let sent = self.input.write_all(format!("{line}\n").as_bytes()).await;
        sent.map_err(TargetError::from)?;
        match self.line().await? {
            Some(answer) => Ok(answer),
            None => Err(self.failure("an answer from a child", None).await),
        }
    }

    /// Kills the child (`SIGKILL`), and returns the lines that it had written and that were not
    /// read yet.
    pub(crate) async fn kill(mut self) -> Verdict<Vec<String>> {
        // Ignore an error: the child may have ended by itself.
        let _ = self.child.start_kill();
        let rest = self.rest().await?;
        let status = self.child.wait().await.map_err(TargetError::from)?;
        if status.code().is_some_and(|code| code != 0) {
            return Err(self.failure("a child that is killed or ends well", None).await);
        }
        Ok(rest)
    }

    /// Waits until the child has done its job, and returns the lines that were not read yet.
    pub(crate) async fn finish(mut self) -> Verdict<Vec<String>> {
        let rest = self.rest().await?;
        let status = self.child.wait().await.map_err(TargetError::from)?;
        if ExitStatus::success(&status) {
            return Ok(rest);
        }
        Err(self.failure("a child that ends well", None).await)
    }

    async fn rest(&mut self) -> Verdict<Vec<String>> {
        let mut rest = Vec::new();
        while let Some(line) = self.line().await? {
            rest.push(line);
        }
        Ok(rest)
    }

    /// The failure of a child that wrote `told` instead of `expected`, with its standard error.
    async fn failure(&mut self, expected: &str, told: Option<String>) -> Failure {
        let _ = self.child.start_kill();
        let mut said = String::new();
        let _ = self.errors.read_to_string(&mut said).await;
        let told = told.map_or_else(|| "its end".to_owned(), |line| format!("{line:?}"));
        Failure::new(expected, format!("{told}; it said: {}", said.trim()))
    }
}
