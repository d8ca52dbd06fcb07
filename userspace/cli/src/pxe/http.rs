//! The web server that iPXE, UEFI's HTTP boot and our UEFI loader load from.

use super::body::Body;
use super::dhcp::Mac;
use super::files::Release;
use super::offer::{IMAGE, IPXE_SCRIPT, RELEASE, UEFI_LOADER};
use super::{Clients, Watch};
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderName, HeaderValue, RANGE,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::cell::Cell;
use std::convert::Infallible;
use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;
use tokio::net::TcpListener;

/// Connections at a time.
const CONNECTIONS_MAX: usize = 256;
/// The head of a request must arrive within this time.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// After a failed accept (no descriptors, say) the next is tried after this time.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Where the script has a machine fetch its files: below this, its hardware address and
/// its serial number.
const MACHINE: &str = "/machine/";

/// What answers need.
pub(crate) struct Site {
    pub(crate) release: Rc<Release>,
    pub(crate) clients: Rc<Clients>,
    pub(crate) watch: Rc<dyn Watch>,
    /// `http://ADDRESS:PORT` of this server.
    pub(crate) root: String,
}

/// Serves for ever.
pub(crate) async fn serve(listener: TcpListener, site: Rc<Site>) {
    let open = Rc::new(Cell::new(0));
    loop {
        match listener.accept().await {
            Ok((stream, client)) if open.get() < CONNECTIONS_MAX => {
                open.set(open.get() + 1);
                let (site, open) = (site.clone(), open.clone());
                tokio::task::spawn_local(async move {
                    let service = service_fn(|request| {
                        let response = answer(&site, client, &request);
                        async { Ok::<_, Infallible>(response) }
                    });
                    let mut server = http1::Builder::new();
                    server
                        .timer(TokioTimer::new())
                        .header_read_timeout(HEAD_TIMEOUT);
                    // What goes wrong on a connection is its client's affair.
                    let _ = server.serve_connection(TokioIo::new(stream), service).await;
                    open.set(open.get() - 1);
                });
            }
            Ok(_) => {}
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

fn answer(site: &Rc<Site>, client: SocketAddr, request: &Request<Incoming>) -> Response<Body> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
    }
    let path = request.uri().path();
    if path == IPXE_SCRIPT {
        site.watch.note(client.ip(), "iPXE asks what to do");
        return text(StatusCode::OK, &script(&site.root));
    }
    let (mac, serial, name) = match path.strip_prefix(MACHINE).and_then(marks) {
        Some((mac, serial, name)) => (mac, Some(serial), name),
        None => {
            let name = path.strip_prefix('/').unwrap_or_default();
            (site.clients.mac(client.ip()), None, name)
        }
    };
    let profile = site.release.profile(mac, serial.as_deref());
    let made = match name {
        IMAGE => site.release.image(profile),
        RELEASE => site.release.release(profile),
        UEFI_LOADER => return loader(site, request),
        _ => return text(StatusCode::NOT_FOUND, "there is no such file\n"),
    };
    let opened = made.and_then(|path| {
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        Ok((file, len))
    });
    match opened {
        Ok((file, len)) => {
            let what = format!("{name} of {}", profile.name);
            part(request, file, len, report(site, client.ip(), what, len))
        }
        Err(error) => {
            site.watch.note(client.ip(), &format!("{error:#}"));
            let words = "the file cannot be made\n";
            text(StatusCode::INTERNAL_SERVER_ERROR, words)
        }
    }
}

/// What iPXE is told: under UEFI to start our loader, which finds the release among the files
/// that iPXE has fetched; in a BIOS to start from the image of the machine.
fn script(root: &str) -> String {
    format!(
        "#!ipxe\n\
         echo Skep: starting from {root}\n\
         set files {root}{MACHINE}${{netX/mac}}/${{serial:uristring}}\n\
         iseq ${{platform}} efi || goto bios\n\
         imgfetch --name {RELEASE} ${{files}}/{RELEASE} || goto failed\n\
         chain ${{files}}/{UEFI_LOADER} || goto failed\n\
         :bios\n\
         sanboot --no-describe ${{files}}/{IMAGE} || goto failed\n\
         :failed\n\
         echo Skep could not be started; trying again in ten seconds\n\
         sleep 10\n\
         reboot\n"
    )
}

/// Hardware address, serial number and file in a path such as
/// `52:54:00:12:34:56/S%201/skep.img`.
fn marks(path: &str) -> Option<(Option<Mac>, String, &str)> {
    let (mac, rest) = path.split_once('/')?;
    let (serial, name) = rest.rsplit_once('/')?;
    // iPXE writes the colons of an address as %3A.
    Some((unescape(mac).parse().ok(), unescape(serial), name))
}

/// A text without its percent signs (RFC 3986, 2.1).
fn unescape(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, others @ ..] = rest {
        let code = others.get(..2).filter(|_| *first == b'%');
        let code = code.and_then(|code| std::str::from_utf8(code).ok());
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &others[2..];
            }
            None => {
                bytes.push(*first);
                rest = others;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Our UEFI loader, the same for all.
fn loader(site: &Site, request: &Request<Incoming>) -> Response<Body> {
    let program = site.release.uefi_loader();
    let len = program.len();
    let body = if request.method() == Method::HEAD {
        Bytes::new()
    } else {
        program
    };
    let mut response = Response::new(Body::Text(body));
    set(&mut response, CONTENT_TYPE, "application/efi");
    set(&mut response, CONTENT_LENGTH, &len.to_string());
    response
}

/// A file, or the part of it that is asked for; `tell` hears of each piece that leaves.
fn part(
    request: &Request<Incoming>,
    file: File,
    len: u64,
    tell: impl FnMut(u64, u64) + 'static,
) -> Response<Body> {
    let asked = request
        .headers()
        .get(RANGE)
        .and_then(|value| value.to_str().ok());
    let wanted = match asked.map_or(Asked::All, |asked| range(asked, len)) {
        Asked::All => None,
        Asked::Part(first, last) => Some((first, last)),
        Asked::Nothing => {
            let mut response = text(StatusCode::RANGE_NOT_SATISFIABLE, "beyond the image\n");
            set(&mut response, CONTENT_RANGE, &format!("bytes */{len}"));
            return response;
        }
    };
    let (first, end) = wanted.map_or((0, len), |(first, last)| (first, last + 1));
    let body = if request.method() == Method::HEAD {
        Body::Text(Bytes::new())
    } else {
        Body::file(file, first, end, tell)
    };
    let mut response = Response::new(body);
    set(&mut response, CONTENT_TYPE, "application/octet-stream");
    set(&mut response, ACCEPT_RANGES, "bytes");
    set(&mut response, CONTENT_LENGTH, &(end - first).to_string());
    if let Some((first, last)) = wanted {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        set(
            &mut response,
            CONTENT_RANGE,
            &format!("bytes {first}-{last}/{len}"),
        );
    }
    response
}

/// Tells the watch how far a client is with a file.
fn report(site: &Site, client: IpAddr, what: String, len: u64) -> impl FnMut(u64, u64) + use<> {
    let watch = site.watch.clone();
    move |read, at| {
        watch.progress(client, &what, at);
        if at == len && read == len {
            watch.done(client, &what, len);
        }
    }
}

/// What of a file a request is for (RFC 9110, 14.1.2).
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    /// All of it, also if the range makes no sense to us.
    All,
    /// From the first byte to the last one.
    Part(u64, u64),
    /// What is not there.
    Nothing,
}

fn range(value: &str, len: u64) -> Asked {
    let parts = value
        .strip_prefix("bytes=")
        .and_then(|part| part.split_once('-'));
    let Some((first, last)) = parts else {
        return Asked::All;
    };
    match (first.parse::<u64>(), last.parse::<u64>(), last) {
        (Ok(first), _, "") if first < len => Asked::Part(first, len - 1),
        (Ok(first), Ok(last), _) if first <= last && first < len => {
            Asked::Part(first, last.min(len - 1))
        }
        (Ok(first), _, "") if first >= len => Asked::Nothing,
        (Ok(first), Ok(last), _) if first <= last => Asked::Nothing,
        (Err(_), Ok(count), _) if first.is_empty() && count > 0 && len > 0 => {
            Asked::Part(len - count.min(len), len - 1)
        }
        _ => Asked::All,
    }
}

fn text(status: StatusCode, words: &str) -> Response<Body> {
    let mut response = Response::new(Body::Text(Bytes::copy_from_slice(words.as_bytes())));
    *response.status_mut() = status;
    set(&mut response, CONTENT_TYPE, "text/plain; charset=utf-8");
    response
}

/// Sets a header whose value is ASCII of our own making.
fn set(response: &mut Response<Body>, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_file() {
        for (value, expected) in [
            ("bytes=0-511", Asked::Part(0, 511)),
            ("bytes=512-", Asked::Part(512, 999)),
            ("bytes=900-5000", Asked::Part(900, 999)),
            ("bytes=-100", Asked::Part(900, 999)),
            ("bytes=-5000", Asked::Part(0, 999)),
            ("bytes=1000-", Asked::Nothing),
            ("bytes=1000-1001", Asked::Nothing),
            ("bytes=5-4", Asked::All),
            ("bytes=0-1,5-6", Asked::All),
            ("bytes=-", Asked::All),
            ("bytes=-0", Asked::All),
            ("lines=1-2", Asked::All),
        ] {
            assert_eq!(range(value, 1000), expected, "{value}");
        }
        assert_eq!(range("bytes=-5", 0), Asked::All);
    }

    #[test]
    fn marks_of_a_machine_in_a_path() {
        let mac = "52:54:00:12:34:56".parse().ok();
        let found = marks("52:54:00:12:34:56/S%201%2/skep.img");
        assert_eq!(found, Some((mac, "S 1%2".to_string(), IMAGE)));
        let escaped = marks("52%3A54%3A00%3A12%3A34%3A56//release");
        assert_eq!(escaped, Some((mac, String::new(), RELEASE)));
        assert_eq!(marks("x//release"), Some((None, String::new(), RELEASE)));
        assert_eq!(marks("52:54:00:12:34:56/skep.img"), None);
    }

    #[test]
    fn the_script_names_the_machine() {
        let script = script("http://10.0.0.1:8067");
        assert!(script.starts_with("#!ipxe\n"));
        let line = "set files http://10.0.0.1:8067/machine/${netX/mac}/${serial:uristring}\n";
        assert!(script.contains(line), "{script}");
        assert!(script.contains("${files}/skep.img"), "{script}");
    }
}
