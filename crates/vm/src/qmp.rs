//! QEMU's own control channel: what it reports (a watchdog that fired, a panic, why the machine stopped), and the few
//! things that a smoke test may ask of it.

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

/// A connection to one machine.
pub struct Qmp {
    stream: UnixStream,
    messages: Receiver<Value>,
    /// Names of the events so far, `SHUTDOWN:guest-reset` with their reason.
    pub events: Vec<String>,
}

impl Qmp {
    /// Connects as soon as the machine listens; `None` when it does not within five seconds.
    pub fn connect(socket: &Path) -> Option<Self> {
        let until = Instant::now() + Duration::from_secs(5);
        let stream = loop {
            match UnixStream::connect(socket) {
                Ok(stream) => break stream,
                Err(_) if Instant::now() < until => std::thread::sleep(Duration::from_millis(20)),
                Err(_) => return None,
            }
        };
        let (tell, messages) = mpsc::channel();
        let reader = BufReader::new(stream.try_clone().ok()?);
        std::thread::spawn(move || {
            for line in reader.lines().map_while(Result::ok) {
                let Ok(message) = serde_json::from_str::<Value>(&line) else {
                    continue;
                };
                if tell.send(message).is_err() {
                    break;
                }
            }
        });
        let mut qmp = Self {
            stream,
            messages,
            events: Vec::new(),
        };
        qmp.command(&json!({ "execute": "qmp_capabilities" }))?;
        Some(qmp)
    }

    /// Takes up what was reported meanwhile.
    pub fn poll(&mut self) {
        while let Ok(message) = self.messages.try_recv() {
            self.note(&message);
        }
    }

    /// Executes a command; its answer, or `None` when there is none in time or it is an error.
    pub fn command(&mut self, command: &Value) -> Option<Value> {
        writeln!(self.stream, "{command}").ok()?;
        let until = Instant::now() + Duration::from_secs(10);
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            let message = self.messages.recv_timeout(left).ok()?;
            if let Some(answer) = message.get("return") {
                return Some(answer.clone());
            }
            if message.get("error").is_some() {
                return None;
            }
            self.note(&message);
        }
        None
    }

    fn note(&mut self, message: &Value) {
        let Some(event) = message.get("event").and_then(Value::as_str) else {
            return;
        };
        let reason = message.pointer("/data/reason").and_then(Value::as_str);
        self.events.push(match reason {
            Some(reason) => format!("{event}:{reason}"),
            None => event.to_owned(),
        });
    }
}

/// Answers a guest's question: `screen ID X Y` is the colour of a pixel of that display's image, as six hexadecimal
/// digits; `balloon MIB` sets how much memory the guest shall have left; `key NAME` presses a key.
pub fn answer(qmp: &mut Qmp, question: &[String], scratch: &Path) -> String {
    let words: Vec<&str> = question.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["screen", device, x, y] => {
            let at = x.parse().ok().zip(y.parse().ok());
            at.and_then(|at| screen(qmp, device, at, scratch))
        }
        ["balloon", mib] => mib.parse::<u64>().ok().and_then(|mib| {
            let command = json!({ "execute": "balloon", "arguments": { "value": mib.saturating_mul(1 << 20) } });
            qmp.command(&command).map(|_| "ok".to_owned())
        }),
        ["key", name] => {
            let keys = json!([{ "type": "qcode", "data": name }]);
            let command = json!({ "execute": "send-key", "arguments": { "keys": keys } });
            qmp.command(&command).map(|_| "ok".to_owned())
        }
        _ => None,
    };
    done.unwrap_or_else(|| "no".to_owned())
}

fn screen(qmp: &mut Qmp, device: &str, at: (usize, usize), scratch: &Path) -> Option<String> {
    let file = scratch.join("screen.ppm");
    let command =
        json!({ "execute": "screendump", "arguments": { "filename": file, "device": device } });
    qmp.command(&command)?;
    pixel(&std::fs::read(&file).ok()?, at)
}

/// One pixel of a binary PPM image.
fn pixel(ppm: &[u8], (x, y): (usize, usize)) -> Option<String> {
    let mut numbers = Vec::new();
    let mut rest = ppm.strip_prefix(b"P6")?;
    while numbers.len() < 3 {
        let start = rest.iter().position(u8::is_ascii_digit)?;
        let digits = rest.get(start..)?;
        let end = digits.iter().position(|b| !b.is_ascii_digit())?;
        numbers.push(
            std::str::from_utf8(digits.get(..end)?)
                .ok()?
                .parse::<usize>()
                .ok()?,
        );
        rest = digits.get(end..)?;
    }
    let &[width, height, _] = numbers.as_slice() else {
        return None;
    };
    if x >= width || y >= height {
        return None;
    }
    let at = y
        .checked_mul(width)?
        .checked_add(x)?
        .checked_mul(3)?
        .checked_add(1)?;
    let colour = rest.get(at..at.checked_add(3)?)?;
    Some(colour.iter().map(|b| format!("{b:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pixel_is_found_and_nothing_outside() {
        let ppm = b"P6\n2 2\n255\n\x00\x01\x02\x03\x04\x05\x06\x07\x08\xff\x00\xff";
        assert_eq!(pixel(ppm, (1, 1)).as_deref(), Some("ff00ff"));
        assert_eq!(pixel(ppm, (1, 0)).as_deref(), Some("030405"));
        assert_eq!(pixel(ppm, (2, 0)), None);
        assert_eq!(pixel(b"P6\n9999999999999999999 1\n255\n", (0, 0)), None);
    }
}
