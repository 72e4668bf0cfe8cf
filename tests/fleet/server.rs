//! A Redis or Valkey of one's own, on a free port, without persistence; killed at the end.

use std::{
    env,
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread::{self, sleep},
    time::{Duration, Instant},
};

pub(crate) struct Server {
    binary: PathBuf,
    port: u16,
    child: Option<Child>,
}

/// Those that are installed; `scripts/test` sees to it that there is one.
pub(crate) fn binaries() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let find = |name: &str| env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file());
    let found: Vec<_> = ["redis-server", "valkey-server"].into_iter().filter_map(find).collect();
    assert!(!found.is_empty(), "neither redis-server nor valkey-server is installed: see scripts/test");
    found
}

impl Server {
    pub(crate) fn start(binary: PathBuf) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut server = Self { binary, port, child: None };
        server.restart();
        server
    }

    /// Begins it, empty, on the same port.
    pub(crate) fn restart(&mut self) {
        self.kill();
        let port = self.port.to_string();
        let child = Command::new(&self.binary)
            .args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .current_dir(env::temp_dir())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        self.child = Some(child);
        // A real process takes its time to come up.
        let end = Instant::now() + Duration::from_secs(10);
        while self.client().get_connection().is_err() {
            assert!(Instant::now() < end, "{:?} does not come up", self.binary);
            sleep(Duration::from_millis(5));
        }
    }

    /// How many turns it has served, by its own count.
    pub(crate) fn turns(&self) -> u64 {
        let stats: String = self.run("INFO commandstats");
        let line = stats.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls="));
        line.and_then(|line| line.split(',').next()?.parse().ok()).unwrap_or(0)
    }

    /// It copies what the other one has, and refuses to be written to.
    pub(crate) fn follow(&self, primary: &Self) {
        let (): () = self.run(&format!("REPLICAOF 127.0.0.1 {}", primary.port));
        let end = Instant::now() + Duration::from_secs(10);
        while !self.run::<String>("INFO replication").contains("master_link_status:up") {
            assert!(Instant::now() < end, "{:?} does not follow", self.binary);
            sleep(Duration::from_millis(5));
        }
    }

    /// By SIGKILL.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub(crate) fn binary(&self) -> PathBuf {
        self.binary.clone()
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    pub(crate) fn client(&self) -> redis::Client {
        redis::Client::open(self.url()).unwrap()
    }

    /// With this user.
    pub(crate) fn client_of(&self, user: &str, password: &str) -> redis::Client {
        redis::Client::open(format!("redis://{user}:{password}@127.0.0.1:{}/", self.port)).unwrap()
    }

    /// One command, from a connection of its own.
    pub(crate) fn run<T: redis::FromRedisValue>(&self, command: &str) -> T {
        let mut connection = self.client().get_connection().unwrap();
        let mut words = command.split_whitespace();
        let mut cmd = redis::cmd(words.next().unwrap());
        words.for_each(|word| {
            cmd.arg(word);
        });
        cmd.query(&mut connection).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// An address that stays while the server behind it is another one. It ends with the process.
pub(crate) struct Address {
    port: u16,
    target: Arc<Mutex<u16>>,
}

impl Address {
    pub(crate) fn of(server: &Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let target = Arc::new(Mutex::new(server.port));
        let to = Arc::clone(&target);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let target = SocketAddr::from(([127, 0, 0, 1], *to.lock().unwrap()));
                // Where nobody listens it closes the connection.
                if let Ok(server) = TcpStream::connect(target) {
                    let _ = forward(&stream, &server).and_then(|()| forward(&server, &stream));
                }
            }
        });
        Self { port, target }
    }

    /// From now on, for new connections.
    pub(crate) fn move_to(&self, server: &Server) {
        *self.target.lock().unwrap() = server.port;
    }

    pub(crate) fn client(&self) -> redis::Client {
        redis::Client::open(format!("redis://127.0.0.1:{}/", self.port)).unwrap()
    }
}

/// What comes from one goes to the other, until one of them is gone.
fn forward(from: &TcpStream, to: &TcpStream) -> io::Result<()> {
    let (mut from, mut to) = (from.try_clone()?, to.try_clone()?);
    to.set_nodelay(true)?;
    thread::spawn(move || {
        let mut buffer = [0; 16 * 1024];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            if to.write_all(&buffer[..length]).is_err() {
                break;
            }
        }
        let _ = (from.shutdown(std::net::Shutdown::Both), to.shutdown(std::net::Shutdown::Both));
    });
    Ok(())
}
