//! Programs people deploy, asked by their own clients: the server is a capsule with
//! published ports, the clients run on the host (through a [`crate::gate::Gate`]). Where what they print can be compared,
//! they ask the same server on the host's Linux too.

mod npm;
mod running;

use super::{Room, room};
use anyhow::{Context as _, Result};
use npm::Npm;

/// A server and what asks it.
pub struct Served {
    /// Name of the scenario.
    pub name: &'static str,
    /// What the scenario does.
    pub about: &'static str,
    /// Name and Debian packages of the image, which hold the clients too.
    pub packages: (&'static str, &'static [&'static str]),
    /// Ports of the server, with the variables in which the clients find them.
    pub ports: &'static [(&'static str, u16)],
    /// The script that is the capsule.
    pub server: &'static str,
    /// The script of the clients; empty if the scenario asks by itself.
    pub client: &'static str,
    /// What npm installs beside the server, if anything.
    npm: Option<Npm>,
    /// What the capsule gets.
    pub room: Room,
}

const NGINX: (&str, &[&str]) = (
    "nginx",
    &[
        "nginx",
        "curl",
        "openssl",
        "bash",
        "dash",
        "coreutils",
        "diffutils",
        "grep",
        "sed",
    ],
);
const PLAIN: (&str, u16) = ("PORT", 8000);
const TLS: (&str, u16) = ("PORT_TLS", 8443);

/// All of them, in the order of `docs/compatibility.md`.
pub const SERVED: &[Served] = &[
    Served {
        name: "redis",
        about: "redis-benchmark from the host with 50 clients, singly and pipelined, with an \
                append-only file; values and counters are checked, also after they were read \
                from the file.",
        packages: (
            "redis",
            &["redis-server", "bash", "coreutils", "sed", "grep"],
        ),
        ports: &[("PORT", 6379)],
        server: include_str!("../../tests/compat/clients/redis-server.sh"),
        client: include_str!("../../tests/compat/clients/redis.sh"),
        npm: None,
        room: room(256, 300),
    },
    Served {
        name: "postgres",
        about: "pgbench from the host with 8 clients; SIGKILL to the postmaster under load; after \
                recovery accounts, tellers, branches and history agree, and every acknowledged \
                transaction is there.",
        packages: (
            "postgres",
            &[
                "postgresql",
                "bash",
                "dash",
                "coreutils",
                "util-linux",
                "sed",
                "grep",
            ],
        ),
        ports: &[("PORT", 5432)],
        server: include_str!("../../tests/compat/clients/postgres-server.sh"),
        client: include_str!("../../tests/compat/clients/postgres.sh"),
        npm: None,
        room: room(512, 600),
    },
    Served {
        name: "nginx_tls",
        about: "curl and `openssl s_client` from the host: TLS 1.2 and 1.3, HTTP/2, resumed \
                sessions, ranges, uploads, strangers' certificates.",
        packages: NGINX,
        ports: &[PLAIN, TLS],
        server: concat!(
            include_str!("../../tests/compat/clients/nginx.sh"),
            "exec nginx -c \"$TMPDIR/nginx.conf\"\n"
        ),
        client: include_str!("../../tests/compat/clients/tls.sh"),
        npm: None,
        room: room(192, 300),
    },
    Served {
        name: "nginx_connections",
        about: "1,000 connections from the host, all open at once, each with several requests; \
                afterwards no socket is left.",
        packages: NGINX,
        ports: &[PLAIN],
        server: concat!(
            include_str!("../../tests/compat/clients/nginx.sh"),
            "exec nginx -c \"$TMPDIR/nginx.conf\"\n"
        ),
        client: "",
        npm: None,
        room: room(192, 300),
    },
    Served {
        name: "nginx_reload",
        about: "`nginx -s reload` every second under the load of several clients: not one request \
                fails, and every old worker ends.",
        packages: NGINX,
        ports: &[PLAIN],
        server: concat!(
            include_str!("../../tests/compat/clients/nginx.sh"),
            include_str!("../../tests/compat/clients/nginx-reload.sh")
        ),
        client: "",
        npm: None,
        room: room(192, 300),
    },
    Served {
        name: "express",
        about: "express as npm installs it: routes, forms, JSON, files, streams and timers, \
                asked by curl from the host.",
        packages: (
            "express",
            &["nodejs", "curl", "bash", "dash", "coreutils", "grep", "sed"],
        ),
        ports: &[("PORT", 3000)],
        server: "exec node /srv/express/server.js\n",
        client: include_str!("../../tests/compat/clients/express.sh"),
        npm: Some(Npm {
            name: "express",
            files: &[
                (
                    "package.json",
                    include_str!("../../tests/compat/clients/express/package.json"),
                ),
                (
                    "package-lock.json",
                    include_str!("../../tests/compat/clients/express/package-lock.json"),
                ),
                (
                    "server.js",
                    include_str!("../../tests/compat/clients/express/server.js"),
                ),
            ],
        }),
        room: room(384, 300),
    },
    Served {
        name: "curl_outside",
        about: "The other way round: curl and `openssl s_client` in a capsule, nginx with TLS on \
                the host.",
        packages: NGINX,
        ports: &[],
        server: concat!(
            include_str!("../../tests/compat/clients/nginx.sh"),
            "nginx -c \"$TMPDIR/nginx.conf\" &\n",
            "until [ -e www/put/stop ]; do sleep 0.2; done\n"
        ),
        client: include_str!("../../tests/compat/clients/tls.sh"),
        npm: None,
        room: room(192, 300),
    },
];

impl Served {
    /// The one called `name`.
    pub fn named(name: &str) -> Result<&'static Self> {
        let found = SERVED.iter().find(|served| served.name == name);
        found.with_context(|| format!("there is no server {name}"))
    }
}

#[cfg(test)]
mod tests {
    use super::SERVED;

    /// The list is what `docs/compatibility.md` tells, so every scenario must be in it.
    #[test]
    fn every_scenario_is_in_the_list() {
        let source = include_str!("../../tests/compat_clients.rs");
        let scenarios = source.lines().filter_map(|line| {
            let name = line
                .strip_prefix("fn ")?
                .strip_suffix("() -> Result<()> {")?;
            Some(name)
        });
        let listed = SERVED.iter().map(|served| served.name);
        assert!(scenarios.eq(listed));
    }
}
