//! The commands against a whole TPM (swtpm), without a machine around it.

use crate::command::Patience;
use crate::seal::UNSEAL;
use crate::transport::Transport;
use crate::wire::{self, Session};
use crate::{PcrSet, Tpm, TpmError};
use core::time::Duration;
use std::boxed::Box;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::{env, format, fs, process, thread};

const HANDLE: u32 = 0x8153_4b50;
/// A TPM in a process of its own, and where its memory is.
struct Swtpm {
    child: Child,
    folder: PathBuf,
}

impl Swtpm {
    fn new(name: &str) -> Swtpm {
        let folder = env::temp_dir().join(format!("skep-{name}-{}", process::id()));
        fs::create_dir_all(&folder).unwrap();
        let child = Swtpm::launch(&folder);
        Swtpm { child, folder }
    }

    fn launch(folder: &Path) -> Child {
        let _ = fs::remove_file(folder.join("socket"));
        Command::new("swtpm")
            .args(["socket", "--tpm2", "--flags", "not-need-init"])
            .arg("--tpmstate")
            .arg(format!("dir={}", folder.display()))
            .arg("--server")
            .arg(format!(
                "type=unixio,path={}",
                folder.join("socket").display()
            ))
            .stdout(Stdio::null())
            .spawn()
            .expect("swtpm runs (scripts/setup installs it)")
    }

    fn open(&self) -> Tpm {
        let socket = self.folder.join("socket");
        let connected = (0..500).find_map(|_| {
            thread::sleep(Duration::from_millis(20));
            UnixStream::connect(&socket).ok()
        });
        let wire = Wire(Mutex::new(connected.expect("swtpm listens")));
        Tpm::open(Box::new(wire)).unwrap()
    }

    /// Cuts its power.
    fn restart(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = Swtpm::launch(&self.folder);
    }
}

impl Drop for Swtpm {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

struct Wire(Mutex<UnixStream>);

impl Transport for Wire {
    fn name(&self) -> &'static str {
        "socket"
    }

    fn exchange(
        &self,
        command: &[u8],
        response: &mut [u8],
        _within: Duration,
    ) -> Result<usize, TpmError> {
        let mut stream = self.0.lock().unwrap();
        stream.write_all(command).unwrap();
        // It writes a response at once.
        Ok(stream.read(response).unwrap())
    }

    fn pause(&self, time: Duration) {
        thread::sleep(time);
    }
}

#[test]
fn registers_are_extended_as_the_specification_says() {
    let swtpm = Swtpm::new("extend");
    let tpm = swtpm.open();
    assert_eq!(tpm.description().manufacturer, "IBM");
    assert_eq!(tpm.read(9), Ok([0; 32]));
    tpm.extend(9, &[7; 32]).unwrap();
    // SHA-256 of 32 zeros and 32 sevens.
    let expected = "daf6d3e6ad66990aba2fae6e6c61f18b";
    let value = tpm.read(9).unwrap();
    let text: std::string::String = value.iter().take(16).map(|b| format!("{b:02x}")).collect();
    assert_eq!(text, expected);
    assert_eq!(tpm.read(10), Ok([0; 32]));
    let mut random = [0; 40];
    tpm.random(&mut random).unwrap();
    assert!(random[30..].iter().any(|b| *b != 0));
}

#[test]
fn a_secret_opens_to_the_same_start_only() {
    let mut swtpm = Swtpm::new("seal");
    let registers = PcrSet::of(&[4, 9, 14]);
    let unseal = |tpm: &Tpm| tpm.unseal(HANDLE, registers, <[u8]>::to_vec);
    let tpm = swtpm.open();
    tpm.extend(9, &[1; 32]).unwrap();
    assert_eq!(tpm.is_kept(HANDLE), Ok(false));
    tpm.seal(HANDLE, b"secret", registers).unwrap();
    assert_eq!(tpm.is_kept(HANDLE), Ok(true));
    assert!(matches!(
        tpm.seal(HANDLE, b"again", registers),
        Err(TpmError::Refused(_))
    ));
    // Sessions and objects are given back: there are three places or so.
    for _ in 0..10 {
        assert_eq!(unseal(&tpm), Ok(b"secret".to_vec()));
    }
    // No password does instead of the registers.
    let by_password = wire::Command::authorised(UNSEAL, &[HANDLE], Session::Password);
    let read = tpm.call(by_password, Patience::SHORT, |r| r.sized().map(drop));
    assert!(matches!(read, Err(TpmError::Refused(_))), "{read:?}");
    // Another set of registers is not what it was sealed to.
    let others = PcrSet::of(&[4, 9]);
    assert_eq!(
        tpm.unseal(HANDLE, others, |_| ()),
        Err(TpmError::OtherState)
    );
    tpm.extend(14, &[2; 32]).unwrap();
    assert_eq!(unseal(&tpm), Err(TpmError::OtherState));
    tpm.shut_down().unwrap();
    drop(tpm);

    swtpm.restart();
    let tpm = swtpm.open();
    assert_eq!(unseal(&tpm), Err(TpmError::OtherState));
    tpm.extend(9, &[1; 32]).unwrap();
    assert_eq!(unseal(&tpm), Ok(b"secret".to_vec()));
    tpm.forget(HANDLE).unwrap();
    assert_eq!(tpm.is_kept(HANDLE), Ok(false));
    tpm.seal(HANDLE, b"another", registers).unwrap();
    assert_eq!(unseal(&tpm), Ok(b"another".to_vec()));
}
