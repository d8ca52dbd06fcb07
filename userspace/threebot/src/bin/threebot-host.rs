//! Runs a node on a Linux machine, for tests and development: plain processes as capsules, and
//! the 3Bot beside them, started again whenever it ends, as the kernel does.
//!
//! `threebot-host FOLDER [ARGUMENTS OF THE 3BOT …]`: the folder holds `node` and `*.manifest` (see
//! [`threebot::host::Bundle`]); the socket is made in it. The 3Bot is the program `threebot` beside
//! this one.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use threebot::host::{Bundle, HostRuntime, socket};
use tokio::net::UnixListener;
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{LocalSet, spawn_local};

/// Between two lives of the 3Bot.
const RESTART_PAUSE: Duration = Duration::from_millis(50);

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let Some(folder) = words.next().map(PathBuf::from) else {
        eprintln!("usage: threebot-host FOLDER [ARGUMENTS OF THE 3BOT ...]");
        return ExitCode::from(2);
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let ended = match runtime {
        Ok(runtime) => LocalSet::new().block_on(&runtime, live(&folder, words.collect())),
        Err(error) => Err(error),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("threebot-host: {}: {error}", folder.display());
            ExitCode::FAILURE
        }
    }
}

async fn live(folder: &Path, arguments: Vec<String>) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let host = HostRuntime::new(Bundle::read(folder)?)?;
    let path = folder.join("control");
    let _ = std::fs::remove_file(&path); // of an earlier run
    let listener = UnixListener::bind(&path)?;
    let serving = spawn_local(serve(host.clone(), listener));
    let agent = spawn_local(keep_agent(path, arguments));
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    agent.abort();
    let _ = agent.await; // dropped, which kills the 3Bot
    serving.abort();
    host.shut_down();
    Ok(())
}

/// One 3Bot at a time, as with the device.
async fn serve(host: HostRuntime, listener: UnixListener) {
    while let Ok((stream, _)) = listener.accept().await {
        if let Err(error) = socket::serve(host.clone(), stream).await {
            eprintln!("threebot-host: control socket: {error}");
        }
    }
}

async fn keep_agent(control: PathBuf, arguments: Vec<String>) {
    let program = std::env::current_exe().map(|own| own.with_file_name("threebot"));
    let Ok(program) = program else {
        return;
    };
    loop {
        let mut command = Command::new(&program);
        command
            .arg("--device")
            .arg(&control)
            .args(&arguments)
            .kill_on_drop(true);
        match command.spawn() {
            Ok(mut child) => drop(child.wait().await),
            Err(error) => eprintln!("threebot-host: {}: {error}", program.display()),
        }
        tokio::time::sleep(RESTART_PAUSE).await;
    }
}
