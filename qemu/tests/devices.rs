//! Devices that fail, and a cable that is pulled.

use anyhow::{Result, ensure};
use skep_qemu::{
    Machine, http,
    ramdisk::{Image, Ramdisk, standard_manifest},
    seconds,
};
use std::{thread, time::Duration};

const NGINX: u16 = 8081;
/// Name of the network device in the machine.
const CABLE: &str = "net0-device";
/// How long the cable is out.
const OUT: Duration = seconds(3);

/// Pulls the cable while a client downloads: nothing comes meanwhile, the download
/// goes on when it is back and gives the same bytes, and the node tells of both.
#[test]
fn a_pulled_cable() -> Result<()> {
    let file: Vec<u8> = (0..16_000_000u32)
        .map(|n| (n >> 8) as u8 ^ n as u8)
        .collect();
    let image = Image::nginx()?.with_files(&[("/var/www/html/download", 0o644, &file)])?;
    let mut ramdisk = Ramdisk::new()?;
    ramdisk.capsule(&standard_manifest("nginx", &image)?, &image)?;
    let path = ramdisk.write("devices-cable")?;
    let mut node = Machine::new("devices-cable").ramdisk(&path).start()?;
    node.wait_http(NGINX, "/", seconds(60))?;
    node.wait_http(8080, "/", seconds(30))?;
    let before = node.api().last_event()?;
    let address = node.address(NGINX);
    let download = thread::spawn(move || http::get(address, "/download", seconds(120)));
    thread::sleep(Duration::from_millis(30));
    node.qmp().set_link(CABLE, false)?;
    ensure!(
        node.get(NGINX, "/", OUT).is_err(),
        "a page came through a pulled cable"
    );
    node.qmp().set_link(CABLE, true)?;
    node.wait_http(NGINX, "/", seconds(30))?;
    let got = download.join().expect("the client does not panic")?;
    ensure!(got.body == file, "other bytes");
    let told = node
        .api()
        .wait_events(before, "device", None, 2, seconds(10))?;
    println!("told: {told:?}");
    let restarts = node.api().capsule("nginx")?["restarts"].clone();
    ensure!(restarts == 0, "nginx was restarted because of the cable");
    Ok(())
}
