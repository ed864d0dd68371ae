//! The control socket's serving side: clients that each send a line and get a line, without ever blocking the loop.

use crate::control::{News, REQUEST_MAX, Request, Response};
use crate::exit::{Exit, Failure};
use nix::poll::PollFlags;
use socket2::{Domain, SockAddr, Socket, Type};
use std::fs::Permissions;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Most clients at once; more wait in the system's queue.
const CLIENTS_MAX: usize = 32;
/// Bytes that a client which is told the news may have to read; one that is slower is cut off.
const BEHIND_MAX: usize = 1 << 18;

/// The listening socket and its clients.
#[derive(Debug)]
pub(super) struct Server {
    path: PathBuf,
    listener: UnixListener,
    clients: Vec<Client>,
    last: u64,
}

#[derive(Debug)]
struct Client {
    id: u64,
    stream: UnixStream,
    input: Vec<u8>,
    output: Vec<u8>,
    /// Requests that were not answered yet.
    owed: usize,
    /// Is told the news.
    watching: bool,
    /// Sends no more: it is gone when everything is answered and written.
    ending: bool,
    gone: bool,
}

impl Server {
    /// Listens at `path`, which only root and this user may then use. A socket that nobody serves is replaced.
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        let shown = path.display();
        if UnixStream::connect(path).is_ok() {
            return Err(Failure::new(Exit::Unavailable, format!("{shown}: another daemon answers there"))
                .advise("Stop it first: service mobconn stop"));
        }
        let cannot = |error: io::Error| Failure::new(Exit::CannotCreate, format!("{shown}: {error}"));
        match std::fs::symlink_metadata(path) {
            Ok(metadata) if std::os::unix::fs::FileTypeExt::is_socket(&metadata.file_type()) => {
                std::fs::remove_file(path).map_err(cannot)?;
            }
            Ok(_) => return Err(Failure::new(Exit::CannotCreate, format!("{shown}: exists and is no socket"))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(cannot(error)),
        }
        let listener = listen(path).map_err(cannot)?;
        Ok(Self { path: path.into(), listener, clients: Vec::new(), last: 0 })
    }

    /// For poll(2): the listener, then the clients, in the order of [`Self::serve`]'s events.
    pub(super) fn fds(&self) -> impl Iterator<Item = (BorrowedFd<'_>, PollFlags)> {
        let accepting = if self.clients.len() < CLIENTS_MAX { PollFlags::POLLIN } else { PollFlags::empty() };
        let clients = self.clients.iter().map(|client| {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::POLLIN, !client.ending);
            flags.set(PollFlags::POLLOUT, !client.output.is_empty());
            (client.stream.as_fd(), flags)
        });
        std::iter::once((self.listener.as_fd(), accepting)).chain(clients)
    }

    /// Does what poll(2) reported, one flag for each descriptor of [`Self::fds`], and returns the requests that are complete.
    pub(super) fn serve(&mut self, ready: &[bool]) -> Vec<(u64, Request)> {
        let mut requests = Vec::new();
        for (client, _) in self.clients.iter_mut().zip(ready.iter().skip(1)).filter(|(_, ready)| **ready) {
            if client.ending && client.output.is_empty() {
                // Nothing was asked of poll(2): the client hung up.
                client.gone = true;
                continue;
            }
            client.write();
            client.read(&mut requests);
        }
        if ready.first() == Some(&true) {
            self.accept();
        }
        self.forget_gone();
        requests
    }

    fn accept(&mut self) {
        while self.clients.len() < CLIENTS_MAX {
            let Ok((stream, _)) = self.listener.accept() else { return };
            if stream.set_nonblocking(true).is_ok() {
                self.last += 1;
                let id = self.last;
                self.clients.push(Client {
                    id,
                    stream,
                    input: Vec::new(),
                    output: Vec::new(),
                    owed: 0,
                    watching: false,
                    ending: false,
                    gone: false,
                });
            }
        }
    }

    /// Whether the client is still there.
    pub(super) fn has(&self, id: u64) -> bool {
        self.clients.iter().any(|client| client.id == id)
    }

    /// Sends a response to a client, if it is still there.
    pub(super) fn answer(&mut self, id: u64, response: &Response) {
        let Some(client) = self.clients.iter_mut().find(|client| client.id == id) else { return };
        client.owed = client.owed.saturating_sub(1);
        client.send(response);
        client.write();
        self.forget_gone();
    }

    /// Tells a client the news from now on; its request is never answered otherwise.
    pub(super) fn watch(&mut self, id: u64) {
        if let Some(client) = self.clients.iter_mut().find(|client| client.id == id) {
            client.owed = client.owed.saturating_sub(1);
            client.watching = true;
        }
    }

    /// Tells all who watch.
    pub(super) fn tell(&mut self, news: impl FnOnce() -> News) {
        if !self.clients.iter().any(|client| client.watching) {
            return;
        }
        let response = Response::News(news());
        for client in self.clients.iter_mut().filter(|client| client.watching) {
            client.send(&response);
            client.write();
            client.gone |= client.output.len() > BEHIND_MAX;
        }
        self.forget_gone();
    }

    fn forget_gone(&mut self) {
        self.clients.retain(|client| !client.gone);
    }

    /// Waits briefly until the last responses are written: the daemon ends.
    pub(super) fn drain(&mut self) {
        for client in &mut self.clients {
            let _ = client.stream.set_nonblocking(false);
            let _ = client.stream.set_write_timeout(Some(std::time::Duration::from_millis(200)));
            client.write();
        }
    }
}

/// Nobody can connect before listen(2), and then the mode is right.
fn listen(path: &Path) -> io::Result<UnixListener> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
    socket.listen(128)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Client {
    fn read(&mut self, requests: &mut Vec<(u64, Request)>) {
        let mut buffer = [0; 1024];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => {
                    self.ending = true;
                    return self.write();
                }
                Ok(length) => self.input.extend_from_slice(buffer.get(..length).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.gone = true;
                    return;
                }
            }
            while let Some(end) = self.input.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.input.drain(..=end).collect();
                match serde_json::from_slice(&line) {
                    Ok(request) => {
                        self.owed += 1;
                        requests.push((self.id, request));
                    }
                    Err(error) => {
                        let failure = Failure::new(Exit::Protocol, format!("no request: {error}"));
                        self.send(&Response::failure(failure));
                        self.write();
                    }
                }
            }
            if self.input.len() > REQUEST_MAX {
                self.input.clear();
                self.ending = true;
                self.send(&Response::failure(Failure::new(Exit::Protocol, "a request that is too long")));
                return self.write();
            }
        }
    }

    fn send(&mut self, response: &Response) {
        match serde_json::to_vec(response) {
            Ok(line) => self.output.extend(line),
            Err(error) => log::error!("cannot answer: {error}"),
        }
        self.output.push(b'\n');
    }

    fn write(&mut self) {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(0) => self.gone = true,
                Ok(length) => {
                    self.output.drain(..length);
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.gone = true,
            }
            return;
        }
        self.gone |= self.ending && self.owed == 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::poll::{PollFd, PollTimeout, poll};
    use std::io::{BufRead, BufReader};
    use std::os::unix::fs::MetadataExt;

    fn server() -> (tempfile::TempDir, Server) {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::open(&folder.path().join("sock")).unwrap();
        (folder, server)
    }

    /// Serves until a request comes or nothing happens any more.
    fn requests(server: &mut Server) -> Vec<(u64, Request)> {
        loop {
            let mut fds: Vec<_> = server.fds().map(|(fd, flags)| PollFd::new(fd, flags)).collect();
            let count = poll(&mut fds, PollTimeout::from(50u8)).unwrap();
            let ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or_default()).collect();
            drop(fds);
            let requests = server.serve(&ready);
            if count == 0 || !requests.is_empty() {
                return requests;
            }
        }
    }

    fn line(stream: &UnixStream) -> String {
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        line
    }

    #[test]
    fn who_watches_is_told_until_it_is_too_slow() {
        let (folder, mut server) = server();
        let news = |text: &str| News { kind: "k".into(), level: "info".into(), peer: String::new(), text: text.into() };
        server.tell(|| panic!("nobody watches"));
        let mut watcher = UnixStream::connect(folder.path().join("sock")).unwrap();
        let mut other = UnixStream::connect(folder.path().join("sock")).unwrap();
        watcher.write_all(b"{\"command\":\"watch\"}\n").unwrap();
        let [(id, Request::Watch)] = requests(&mut server)[..] else { panic!("no request to watch") };
        server.watch(id);
        other.write_all(b"{\"command\":\"status\"}\n").unwrap();
        assert_eq!(requests(&mut server).len(), 1);
        server.tell(|| news("one"));
        assert_eq!(
            line(&watcher),
            "{\"answer\":\"news\",\"kind\":\"k\",\"level\":\"info\",\"peer\":\"\",\"text\":\"one\"}\n"
        );
        other.set_nonblocking(true).unwrap();
        assert!(other.read(&mut [0; 1]).is_err(), "it did not ask");
        // The socket takes some, then the daemon keeps some, then it has had enough.
        let long = "x".repeat(10_000);
        for _ in 0..200 {
            server.tell(|| news(&long));
        }
        assert!(!server.has(id));
    }

    #[test]
    fn a_request_and_its_answer() {
        let (folder, mut server) = server();
        let path = folder.path().join("sock");
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.write_all(b"{\"command\":").unwrap();
        assert_eq!(requests(&mut server), []);
        stream.write_all(b"\"status\"}\n{\"command\":\"stop\"}\n").unwrap();
        let got = requests(&mut server);
        let [(id, Request::Status), (same, Request::Stop)] = got[..] else { panic!("{got:?}") };
        assert_eq!(id, same);
        assert!(server.has(id));
        server.answer(id, &Response::Done);
        assert_eq!(line(&stream), "{\"answer\":\"done\"}\n");
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        requests(&mut server);
        assert!(server.has(id), "one answer is owed");
        drop(stream);
        requests(&mut server);
        assert!(!server.has(id));
        server.answer(id, &Response::Done);
        drop(server);
        assert!(!path.exists());
    }

    #[test]
    fn nonsense_is_answered_and_floods_are_cut() {
        let (folder, mut server) = server();
        let mut stream = UnixStream::connect(folder.path().join("sock")).unwrap();
        stream.write_all(b"hello\n").unwrap();
        assert_eq!(requests(&mut server), []);
        assert!(line(&stream).contains("\"exit\":76"));
        stream.write_all(&[b'x'; REQUEST_MAX + 1]).unwrap();
        assert_eq!(requests(&mut server), []);
        assert!(line(&stream).contains("too long"));
        assert_eq!(line(&stream), "", "the connection ends");
        assert_eq!(server.clients.len(), 0);
    }

    #[test]
    fn many_clients_wait_their_turn() {
        let (folder, mut server) = server();
        let streams: Vec<_> = (0..CLIENTS_MAX + 3)
            .map(|_| {
                let mut stream = UnixStream::connect(folder.path().join("sock")).unwrap();
                stream.write_all(b"{\"command\":\"peers\"}\n").unwrap();
                stream
            })
            .collect();
        let mut seen = 0;
        loop {
            let got = requests(&mut server);
            if got.is_empty() {
                break;
            }
            seen += got.len();
        }
        assert_eq!((seen, server.clients.len()), (CLIENTS_MAX, CLIENTS_MAX));
        drop(streams);
        while !requests(&mut server).is_empty() || !server.clients.is_empty() {}
    }

    #[test]
    fn a_dead_socket_is_replaced_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let _live = Server::open(&path).unwrap();
        assert!(Server::open(&path).unwrap_err().message.contains("another daemon"));
        let file = folder.path().join("file");
        std::fs::write(&file, "precious").unwrap();
        assert!(Server::open(&file).unwrap_err().message.contains("no socket"));
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
    }
}
