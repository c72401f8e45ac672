//! MAC addresses of the peer's stations: only so many at a time.

use std::collections::HashMap;

/// Time in seconds after which a silent station is forgotten, as a bridge forgets it.
const AGE_S: u64 = 300;

/// Table of stations. Its memory is allocated at the start.
#[derive(Debug)]
pub struct Stations {
    most: usize,
    /// Time in seconds at which each station was heard last. The hash is keyed, so that the peer cannot choose collisions.
    heard: HashMap<[u8; 6], u64>,
    /// Time in seconds of the last search for silent stations.
    searched_s: u64,
}

impl Stations {
    /// Empty table for this many stations.
    pub fn new(most: u16) -> Self {
        let most = usize::from(most);
        // A table that is at most half full reuses the places of removed entries, and never grows.
        Self { most, heard: HashMap::with_capacity(2 * most), searched_s: 0 }
    }

    /// Whether this station may send. A new one needs room.
    pub fn admits(&mut self, station: [u8; 6], now_s: u64) -> bool {
        if let Some(heard) = self.heard.get_mut(&station) {
            *heard = now_s;
            return true;
        }
        if self.heard.len() == self.most && now_s > self.searched_s {
            self.searched_s = now_s;
            self.heard.retain(|_, heard| now_s < *heard + AGE_S);
        }
        let room = self.heard.len() < self.most;
        if room {
            self.heard.insert(station, now_s);
        }
        room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn station(number: u32) -> [u8; 6] {
        let [a, b, c, d] = number.to_be_bytes();
        [2, 0, a, b, c, d]
    }

    #[test]
    fn silent_stations_make_room() {
        let mut stations = Stations::new(3);
        assert_eq!([1, 2, 3, 4].map(|number| stations.admits(station(number), 7)), [true, true, true, false]);
        assert!(stations.admits(station(2), 200) && !stations.admits(station(4), 306));
        assert!(
            stations.admits(station(4), 307) && stations.admits(station(5), 307) && !stations.admits(station(6), 307)
        );
        assert!(stations.admits(station(2), 308), "heard a short time ago");
    }

    #[test]
    fn table_of_stations_never_grows() {
        let mut stations = Stations::new(100);
        let capacity = stations.heard.capacity();
        for number in 0..100_000 {
            stations.admits(station(number), u64::from(number) * 3);
        }
        // Places of removed entries do not count.
        assert!(stations.heard.capacity() <= capacity);
    }
}
