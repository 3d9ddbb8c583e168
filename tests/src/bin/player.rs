//! A game server and its player: `player serve ADDRESS` answers each datagram with itself, `player play
//! ADDRESS RATE` sends so many a second and prints, a line a second, how many came back.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a program for tests")]

use std::net::UdpSocket;
use std::time::{Duration, Instant};

/// Octets of a datagram.
const OCTETS: usize = 100;

/// An answer that takes longer is lost to a player.
const LATE: Duration = Duration::from_secs(1);

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let text: Vec<&str> = args.iter().map(String::as_str).collect();
    match text[1..] {
        ["serve", address] => serve(address),
        ["play", address, rate] => play(address, rate.parse().unwrap()),
        _ => panic!("player serve ADDRESS | player play ADDRESS RATE"),
    }
}

fn serve(address: &str) {
    let socket = UdpSocket::bind(address).unwrap();
    let mut octets = [0; 2048];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut octets) else { continue };
        // Only the player's own: reflected floods are not answered.
        if length == OCTETS {
            let _ = socket.send_to(&octets[..length], from);
        }
    }
}

fn play(address: &str, rate: u32) {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect(address).unwrap();
    let (start, gap) = (Instant::now(), Duration::from_secs(1) / rate);
    let mut sent: u32 = 0;
    // By the second in which each was sent.
    let mut back: Vec<u32> = Vec::new();
    let mut told = 0;
    let mut octets = [0; OCTETS];
    loop {
        while start.elapsed() >= gap * sent {
            octets[..4].copy_from_slice(&sent.to_be_bytes());
            // A router that drops it says so or does not: it is lost either way.
            let _ = socket.send(&octets);
            sent += 1;
        }
        let wait = (gap * sent).saturating_sub(start.elapsed()).max(Duration::from_micros(100));
        socket.set_read_timeout(Some(wait)).unwrap();
        let mut answer = [0; 2048];
        if let Ok(length) = socket.recv(&mut answer)
            && length == OCTETS
        {
            let number = u32::from_be_bytes(answer[..4].try_into().unwrap());
            let second = (number / rate) as usize;
            let due = gap * number + LATE;
            if back.len() <= second {
                back.resize(second + 1, 0);
            }
            if start.elapsed() <= due {
                back[second] += 1;
            }
        }
        while start.elapsed() > Duration::from_secs(told + 1) + LATE {
            let came = back.get(usize::try_from(told).unwrap()).copied().unwrap_or(0);
            println!("{told} {rate} {came}");
            told += 1;
        }
    }
}
