//! Servers are started and asked, on a node and on the host's Linux.

use super::{Npm, Served};
use crate::{
    Machine, Node,
    gate::Gate,
    http,
    ramdisk::{Image, port},
    seconds,
    suite::layer::{Files, collect},
    twin::{self, Packages, ensure_same, printed},
};
use anyhow::{Context as _, Result, ensure};
use skep_api::manifest::Outbound;
use std::{net::TcpListener, path::Path, thread};

/// What begins a line that tells how fast something was: it is shown, not compared.
const FIGURE: char = '~';
/// Shell words that run a script.
const BASH: [&str; 2] = ["/bin/bash", "/script"];
/// How the host reaches itself, and how a capsule on QEMU's user network reaches the host.
const HERE: &str = "127.0.0.1";
const OUTSIDE: &str = "10.0.2.2";

impl Served {
    fn packed(&self) -> Result<Packages> {
        let (name, packages) = self.packages;
        Packages::pack(&format!("clients-{name}"), packages)
    }

    fn scenario(&self) -> String {
        format!("clients-{}", self.name)
    }

    /// The machine whose capsule `program` is the server, its ports published and
    /// reached by the host; not started yet.
    pub fn machine(&self) -> Result<Machine> {
        let over = self.npm.map(Npm::install).transpose()?;
        let files = over
            .as_deref()
            .map(files_of)
            .transpose()?
            .unwrap_or_default();
        let mut more = vec![("/script", 0o755, self.server.as_bytes())];
        more.extend(
            files
                .iter()
                .map(|(path, mode, data)| (path.as_str(), *mode, data.as_slice())),
        );
        let image = self.packed()?.image(&more)?;
        let mut program = twin::capsule(&image, &BASH, self.room);
        let mut machine_ports = Vec::new();
        for (_, number) in self.ports {
            program.ports.push(port(*number, *number));
            machine_ports.push(*number);
        }
        let mut machine = twin::machine(&self.scenario(), &program, &image, self.room)?;
        machine.guest_ports.extend(machine_ports);
        Ok(machine)
    }

    /// The clients print the same of the server in a capsule and of the one on the
    /// host's Linux, and the capsule has not ended.
    pub fn check(&self) -> Result<()> {
        let packages = self.packed()?;
        let host = self.on_the_host(&packages)?;
        let mut node = self.machine()?.start()?;
        node.wait_http(8080, "/", seconds(60))?;
        let gates: Vec<Gate> = self
            .ports
            .iter()
            .map(|(_, port)| Gate::before(node.address(*port)))
            .collect::<Result<_>>()?;
        let script = self.asking(HERE, gates.iter().map(|gate| gate.address().port()));
        let said = packages.reaching_out(&script, self.room.time);
        let capsule = node.api().capsule("program")?;
        let state = || format!("the capsule is {capsule}; {}", log_of(&node));
        let said = said.with_context(state)?;
        ensure!(capsule["state"] == "running", "{}", state());
        self.compare(&said, &host)
    }

    /// The same clients and server on the host's Linux, in a network of their own.
    fn on_the_host(&self, packages: &Packages) -> Result<String> {
        let over = self.npm.map(Npm::install).transpose()?;
        let script = format!(
            "cat >/tmp/server <<'end of the server'\n{}\nend of the server\n\
             (cd /tmp && exec bash /tmp/server >/tmp/server.log 2>&1) &\n{}",
            self.server,
            self.asking(HERE, self.ports.iter().map(|(_, port)| *port))
        );
        let over = over.as_deref();
        let ran = packages.run_on_the_host(over, script.as_bytes(), &BASH, self.room.time)?;
        Ok(String::from_utf8_lossy(&printed(&BASH, ran)?).into_owned())
    }

    /// The clients' script, for a server at this address with its ports there.
    fn asking(&self, host: &str, ports: impl Iterator<Item = u16>) -> String {
        let mut script = format!("export HOST={host}\n");
        for ((variable, _), number) in self.ports.iter().zip(ports) {
            script += &format!("export {variable}={number}\n");
        }
        script + self.client
    }

    fn compare(&self, node: &str, host: &str) -> Result<()> {
        for (place, said) in [("node", node), ("host", host)] {
            for figure in said.lines().filter_map(|line| line.strip_prefix(FIGURE)) {
                println!("{} on the {place}:{figure}", self.name);
            }
        }
        let name = self.scenario();
        ensure_same(&name, &without_figures(node), &without_figures(host))
    }

    /// The server runs on the host; its clients in a capsule print the same of it as
    /// those on the host.
    pub fn check_outwards(&self) -> Result<()> {
        let packages = self.packed()?;
        let free = || anyhow::Ok(TcpListener::bind((HERE, 0))?.local_addr()?);
        let (plain, tls) = (free()?, free()?);
        let clients = |host: &str| {
            let ports = format!("export PORT={} PORT_TLS={}\n", plain.port(), tls.port());
            ports + &self.asking(host, [].into_iter())
        };
        let server = format!("export LISTEN={plain} LISTEN_TLS={tls}\n{}", self.server);
        thread::scope(|scope| {
            let serving = scope.spawn(|| packages.reaching_out(&server, self.room.time));
            let both = self.both(&packages, clients);
            let stop = http::request(plain, "PUT", "/put/stop", &[], b"1", seconds(10));
            let served = serving.join();
            let (node, host) = both.with_context(|| format!("the server: {served:?}"))?;
            stop.context("the server does not hear")?;
            self.compare(&node, &host)
        })
    }

    /// What the clients print in a capsule, and on the host.
    fn both(
        &self,
        packages: &Packages,
        clients: impl Fn(&str) -> String,
    ) -> Result<(String, String)> {
        let host = packages.reaching_out(&clients(HERE), self.room.time)?;
        let image: Image = packages.image(&[("/script", 0o755, clients(OUTSIDE).as_bytes())])?;
        let mut program = twin::capsule(&image, &BASH, self.room);
        program.outbound = Outbound::Allow;
        let node = twin::what_it_prints(&self.scenario(), &program, &image, self.room)?;
        Ok((node, host))
    }
}

/// What the capsule has printed.
fn log_of(node: &Node) -> String {
    let log = node.api().log("program");
    format!("it printed: {}", log.unwrap_or_default())
}

fn without_figures(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.starts_with(FIGURE));
    lines.fold(String::new(), |all, line| all + line + "\n")
}

fn files_of(folder: &Path) -> Result<Files> {
    let mut files = Files::new();
    collect(folder, folder, Path::new("/"), &mut files)?;
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::without_figures;

    #[test]
    fn figures_are_left_out_of_what_is_compared() {
        assert_eq!(without_figures("a\n~ 3 ms\nb ~\n"), "a\nb ~\n");
    }
}
