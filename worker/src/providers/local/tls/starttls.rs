//! How a conversation that begins in clear comes to TLS: SMTP (RFC 3207), IMAP (RFC 9051, 6.2.1) and PostgreSQL (its protocol's
//! `SSLRequest`).
//!
//! Answers are read byte by byte, so that nothing of the handshake is taken for them.

use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// What a server speaks before TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Opening {
    /// Nothing: TLS from the first byte on.
    Tls,
    Smtp,
    Imap,
    Postgres,
}

/// Why it did not come to TLS.
#[derive(Debug)]
pub enum Refusal {
    Io(io::Error),
    /// The server can, but will not.
    NotOffered,
    /// The server says something else than the protocol has here.
    NotSpoken,
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Bytes of one line, and lines of one answer.
const LINE_LIMIT: usize = 2_048;
const LINES_LIMIT: usize = 200;
/// The name by which we greet a mail server: one that is nobody's (RFC 6761).
const EHLO: &[u8] = b"EHLO keywright.invalid\r\n";
/// Length 8, code 1234.5679.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

impl Opening {
    /// By its scheme, as users write it before `host:port`.
    pub fn named(scheme: &str) -> Option<Self> {
        match scheme {
            "tls" => Some(Self::Tls),
            "smtp" => Some(Self::Smtp),
            "imap" => Some(Self::Imap),
            "postgres" | "postgresql" => Some(Self::Postgres),
            _ => None,
        }
    }

    /// What is usual at a port.
    pub fn usual(port: u16) -> Self {
        match port {
            25 | 587 => Self::Smtp,
            143 => Self::Imap,
            5432 => Self::Postgres,
            _ => Self::Tls,
        }
    }

    /// What people call it; `None` where TLS stands alone.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::Tls => None,
            Self::Smtp => Some("SMTP"),
            Self::Imap => Some("IMAP"),
            Self::Postgres => Some("PostgreSQL"),
        }
    }

    /// Talks until the next byte is TLS's.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn speak<S: AsyncRead + AsyncWrite + Unpin>(self, stream: &mut S) -> Result<(), Refusal> {
        match self {
            Self::Tls => Ok(()),
            Self::Smtp => smtp(stream).await,
            Self::Imap => imap(stream).await,
            Self::Postgres => postgres(stream).await,
        }
    }
}

async fn smtp<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> Result<(), Refusal> {
    if reply(stream).await?.0 != 220 {
        return Err(Refusal::NotSpoken);
    }
    stream.write_all(EHLO).await?;
    let (code, offers) = reply(stream).await?;
    // a server of RFC 821 knows neither EHLO nor extensions
    if code != 250 || !offers.iter().any(|offer| offer.trim().eq_ignore_ascii_case("STARTTLS")) {
        return Err(Refusal::NotOffered);
    }
    stream.write_all(b"STARTTLS\r\n").await?;
    if reply(stream).await?.0 == 220 { Ok(()) } else { Err(Refusal::NotOffered) }
}

/// A reply of SMTP: its code, and what follows the code in each line.
async fn reply<S: AsyncRead + Unpin>(stream: &mut S) -> Result<(u16, Vec<String>), Refusal> {
    let mut texts = Vec::new();
    while texts.len() < LINES_LIMIT {
        let line = line(stream).await?;
        let code = line.get(..3).and_then(|code| code.parse().ok()).ok_or(Refusal::NotSpoken)?;
        texts.push(line.get(4..).unwrap_or_default().to_owned());
        if line.as_bytes().get(3) != Some(&b'-') {
            return Ok((code, texts));
        }
    }
    Err(Refusal::NotSpoken)
}

async fn imap<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> Result<(), Refusal> {
    if !line(stream).await?.to_ascii_uppercase().starts_with("* OK") {
        return Err(Refusal::NotSpoken);
    }
    stream.write_all(b"k1 STARTTLS\r\n").await?;
    for _ in 0..LINES_LIMIT {
        let line = line(stream).await?.to_ascii_uppercase();
        match line.strip_prefix("K1 ") {
            Some(end) if end.starts_with("OK") => return Ok(()),
            Some(_) => return Err(Refusal::NotOffered),
            None if line.starts_with("* ") => {}
            None => return Err(Refusal::NotSpoken),
        }
    }
    Err(Refusal::NotSpoken)
}

async fn postgres<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> Result<(), Refusal> {
    stream.write_all(&SSL_REQUEST).await?;
    match stream.read_u8().await? {
        b'S' => Ok(()),
        b'N' => Err(Refusal::NotOffered),
        _ => Err(Refusal::NotSpoken),
    }
}

/// One line without its end.
async fn line<S: AsyncRead + Unpin>(stream: &mut S) -> Result<String, Refusal> {
    let mut bytes = Vec::new();
    loop {
        match stream.read_u8().await? {
            b'\n' => break,
            byte => bytes.push(byte),
        }
        if bytes.len() > LINE_LIMIT {
            return Err(Refusal::NotSpoken);
        }
    }
    if bytes.last() == Some(&b'\r') {
        bytes.pop();
    }
    // a banner in another encoding is no reason to hang up
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The conversation with a server that says `says`, whose first byte of TLS is 0x16; what it was told, too.
    async fn talk(opening: Opening, says: &[u8]) -> (Result<Option<u8>, Refusal>, Vec<u8>) {
        let (mut ours, mut theirs) = tokio::io::duplex(64 * 1024);
        theirs.write_all(says).await.unwrap();
        let spoken = opening.speak(&mut ours).await;
        let told = match spoken {
            Ok(()) => Ok(Some(ours.read_u8().await.unwrap())),
            Err(refusal) => Err(refusal),
        };
        drop(ours);
        let mut heard = Vec::new();
        theirs.read_to_end(&mut heard).await.unwrap();
        (told, heard)
    }

    #[tokio::test]
    async fn what_follows_the_last_answer_is_left_to_tls() {
        let smtp = "220-first\r\n220 mail.example ESMTP\r\n250-mail.example\r\n250-SIZE 1\r\n250 starttls\r\n220 go on\r\n\x16";
        let imap = "* OK [CAPABILITY IMAP4rev2] hello\r\n* CAPABILITY IMAP4rev2\r\nk1 OK begin\r\n\x16";
        for (opening, says, told) in [
            (Opening::Smtp, smtp, &b"EHLO keywright.invalid\r\nSTARTTLS\r\n"[..]),
            (Opening::Imap, imap, b"k1 STARTTLS\r\n"),
            (Opening::Postgres, "S\x16", &SSL_REQUEST),
            (Opening::Tls, "\x16", b""),
        ] {
            let (next, heard) = talk(opening, says.as_bytes()).await;
            assert_eq!((next.unwrap(), &heard[..]), (Some(0x16), told), "{opening:?}");
        }
    }

    #[tokio::test]
    async fn servers_that_will_not_are_told_from_those_that_speak_something_else() {
        for (opening, says) in [
            (Opening::Smtp, "220 a\r\n250-a\r\n250 SIZE 1\r\n"),
            (Opening::Smtp, "220 a\r\n502 what?\r\n"),
            (Opening::Smtp, "220 a\r\n250 STARTTLS\r\n454 not now\r\n"),
            (Opening::Imap, "* OK\r\nk1 BAD no\r\n"),
            (Opening::Imap, "* OK\r\nK1 NO never\r\n"),
            (Opening::Postgres, "N"),
        ] {
            let (told, _) = talk(opening, says.as_bytes()).await;
            assert!(matches!(told, Err(Refusal::NotOffered)), "{opening:?} {says:?}: {told:?}");
        }
        for (opening, says) in [
            (Opening::Smtp, "554 go away\r\n".to_owned()),
            (Opening::Smtp, "HTTP/1.1 400 Bad Request\r\n".to_owned()),
            (Opening::Smtp, "220-x\r\n".repeat(LINES_LIMIT + 1)),
            (Opening::Imap, "* BYE\r\n".to_owned()),
            (Opening::Imap, "x".repeat(LINE_LIMIT + 1)),
            (Opening::Postgres, "E".to_owned()),
        ] {
            let (told, _) = talk(opening, says.as_bytes()).await;
            assert!(matches!(told, Err(Refusal::NotSpoken)), "{opening:?}: {told:?}");
        }
    }
}
