//! The 3Bot's program: capsules first, then the web.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use threebot::agent::Agent;
use threebot::console::say;
use threebot::http;
use threebot::kernel::KernelRuntime;
use threebot::runtime::{self, Runtime};
use tokio::task::{LocalSet, spawn_local};

/// Where the kernel's control device is.
const DEVICE: &str = "/dev/skep";
/// The API's and status page's port.
const PORT: u16 = 8080;
/// The port may still be held by an earlier life; the wait between two tries.
const LISTEN_PAUSE: Duration = Duration::from_millis(200);

/// `threebot [--device PATH] [--listen ADDRESS:PORT]`
struct Arguments {
    device: PathBuf,
    listen: SocketAddr,
}

fn main() -> ExitCode {
    let arguments = match parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(message) => {
            eprintln!("threebot: {message}");
            eprintln!("usage: threebot [--device PATH] [--listen ADDRESS:PORT]");
            return ExitCode::from(2);
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build();
    let ended = match runtime {
        Ok(runtime) => LocalSet::new().block_on(&runtime, live(arguments)),
        Err(error) => error.to_string(),
    };
    // The kernel starts the 3Bot again; the capsules do not notice.
    say(format_args!("ends: {ended}"));
    ExitCode::FAILURE
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let mut arguments = Arguments {
        device: PathBuf::from(DEVICE),
        listen: SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT)),
    };
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
        match word.as_str() {
            "--device" => arguments.device = PathBuf::from(value()?),
            "--listen" => {
                let text = value()?;
                arguments.listen = text
                    .parse()
                    .map_err(|_| format!("not an address and port: {text}"))?;
            }
            _ => return Err(format!("unknown argument {word}")),
        }
    }
    Ok(arguments)
}

/// Lives until the kernel is gone; returns why.
async fn live(arguments: Arguments) -> String {
    let device = match KernelRuntime::open(&arguments.device) {
        Ok(device) => device,
        Err(error) => return format!("{}: {error}", arguments.device.display()),
    };
    let (control, calls, sender, events) = runtime::channels();
    let served = spawn_local(device.serve(calls, sender));
    let agent = match Agent::begin(control).await {
        Ok(agent) => agent,
        Err(failure) => return failure.to_string(),
    };
    spawn_local(Rc::clone(&agent).keep_saved());
    spawn_local(web(Rc::clone(&agent), arguments.listen));
    tokio::select! {
        ended = agent.run(events) => ended.to_string(),
        lost = served => match lost {
            Ok(error) => format!("{}: {error}", arguments.device.display()),
            Err(error) => error.to_string(),
        },
    }
}

/// Serves the API as soon as its port can be had.
async fn web(agent: Rc<Agent>, address: SocketAddr) {
    let mut complained = false;
    loop {
        match http::listen(address).await {
            Ok(listener) => {
                spawn_local(Rc::clone(&agent).confirm_health());
                return http::serve(agent, listener).await;
            }
            Err(error) if !complained => {
                complained = true;
                say(format_args!("cannot listen on {address} yet: {error}"));
            }
            Err(_) => {}
        }
        tokio::time::sleep(LISTEN_PAUSE).await;
    }
}
