//! Reference: frames and segmentation written slowly after the RFCs, without any of the tested code.

/// Properties of the frames of a flow.
#[derive(Debug, Clone)]
pub struct Flow {
    pub v6: bool,
    pub udp: bool,
    /// Tags, four bytes each.
    pub tags: Vec<u8>,
    /// Extension headers of IPv6: type, and bytes of which the first two are filled in.
    pub extensions: Vec<(u8, Vec<u8>)>,
    /// Options of IPv4, and of TCP.
    pub ip_options: Vec<u8>,
    pub options: Vec<u8>,
    pub host: u8,
    pub port: u16,
    pub traffic_class: u8,
    pub hops: u8,
    /// Flags of an IPv4 fragment field.
    pub fragment: u16,
    pub acknowledged: u32,
    pub window: u16,
}

impl Flow {
    pub fn new(v6: bool, udp: bool) -> Self {
        Self {
            v6,
            udp,
            tags: Vec::new(),
            extensions: Vec::new(),
            ip_options: Vec::new(),
            options: Vec::new(),
            host: 1,
            port: 1000,
            traffic_class: 0,
            hops: 64,
            fragment: 0x4000,
            acknowledged: 7,
            window: 501,
        }
    }

    /// Offsets of packet, transport header and payload.
    pub fn layout(&self) -> (usize, usize, usize) {
        let network = 14 + self.tags.len();
        let extensions: usize = self.extensions.iter().map(|(_, bytes)| bytes.len()).sum();
        let transport = network + if self.v6 { 40 + extensions } else { 20 + self.ip_options.len() };
        (network, transport, transport + if self.udp { 8 } else { 20 + self.options.len() })
    }

    fn addresses(&self) -> Vec<u8> {
        if self.v6 {
            [&[0x20, 1, 0xd, 0xb8], &[0; 11][..], &[self.host], &[0x20, 1, 0xd, 0xb8, 9], &[0; 10], &[2]].concat()
        } else {
            vec![192, 0, 2, self.host, 198, 51, 100, 2]
        }
    }

    fn pseudo(&self, length: usize) -> Vec<u8> {
        let length = u32::try_from(length).unwrap().to_be_bytes();
        [&self.addresses()[..], &[0, if self.udp { 17 } else { 6 }], &length].concat()
    }

    /// A frame with right lengths and checksums.
    pub fn frame(&self, id: u16, sequence: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
        let (_, transport, at) = self.layout();
        let mut frame = self.unsummed(id, sequence, flags, payload);
        let sum = sum(&[&self.pseudo(at - transport + payload.len())[..], &frame[transport..]].concat());
        let sum = if self.udp && sum == 0xffff { 0xffff } else { !sum };
        let field = transport + if self.udp { 6 } else { 16 };
        frame[field..field + 2].copy_from_slice(&sum.to_be_bytes());
        frame
    }

    /// A superframe: its checksum field has the sum of the pseudo header.
    pub fn superframe(&self, id: u16, sequence: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
        let (_, transport, at) = self.layout();
        let mut frame = self.unsummed(id, sequence, flags, payload);
        let field = transport + if self.udp { 6 } else { 16 };
        let sum = sum(&self.pseudo(at - transport + payload.len()));
        frame[field..field + 2].copy_from_slice(&sum.to_be_bytes());
        frame
    }

    fn unsummed(&self, id: u16, sequence: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
        let word = |length: usize| u16::try_from(length).unwrap().to_be_bytes();
        let (network, transport, at) = self.layout();
        let mut frame = [&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1], &self.tags[..]].concat();
        let protocol = if self.udp { 17 } else { 6 };
        if self.v6 {
            frame.extend_from_slice(&[0x86, 0xdd, 0x60 | self.traffic_class >> 4, self.traffic_class << 4 | 1, 2, 3]);
            frame.extend_from_slice(&word(at - network - 40 + payload.len()));
            frame.extend_from_slice(&[self.extensions.first().map_or(protocol, |first| first.0), self.hops]);
            frame.extend_from_slice(&self.addresses());
            for (index, (_, bytes)) in self.extensions.iter().enumerate() {
                let next = self.extensions.get(index + 1).map_or(protocol, |next| next.0);
                frame.extend_from_slice(&[next, u8::try_from(bytes.len() / 8 - 1).unwrap()]);
                frame.extend_from_slice(&bytes[2..]);
            }
        } else {
            let header = u8::try_from((transport - network) / 4).unwrap();
            frame.extend_from_slice(&[8, 0, 0x40 | header, self.traffic_class]);
            frame.extend_from_slice(&word(at - network + payload.len()));
            frame.extend_from_slice(&[id.to_be_bytes(), self.fragment.to_be_bytes()].concat());
            frame.extend_from_slice(&[self.hops, protocol, 0, 0]);
            frame.extend_from_slice(&[&self.addresses()[..], &self.ip_options].concat());
            let sum = !sum(&frame[network..]);
            frame[network + 10..network + 12].copy_from_slice(&sum.to_be_bytes());
        }
        frame.extend_from_slice(&[self.port.to_be_bytes(), [1, 187]].concat());
        if self.udp {
            frame.extend_from_slice(&[word(8 + payload.len()), [0, 0]].concat());
        } else {
            frame.extend_from_slice(&[sequence.to_be_bytes(), self.acknowledged.to_be_bytes()].concat());
            frame.extend_from_slice(&[u8::try_from((at - transport) / 4).unwrap() << 4, flags]);
            frame.extend_from_slice(&[&self.window.to_be_bytes()[..], &[0, 0, 0, 0], &self.options].concat());
        }
        frame.extend_from_slice(payload);
        frame
    }

    /// Frames of a segmented superframe.
    pub fn cut(&self, id: u16, sequence: u32, flags: u8, payload: &[u8], segment: usize) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        let count = payload.len().div_ceil(segment).max(1);
        for index in 0..count {
            let part = &payload[index * segment..payload.len().min((index + 1) * segment)];
            // CWR is only in the first frame, FIN and PSH only in the last.
            let mut flags = if index == 0 { flags } else { flags & !0x80 };
            if index + 1 < count {
                flags &= !0x09;
            }
            // A sender that does not count identifications writes zero with DF.
            let counts = id != 0 || self.fragment != 0x4000;
            let id = if counts { id.wrapping_add(u16::try_from(index).unwrap()) } else { 0 };
            frames.push(self.frame(id, sequence.wrapping_add(u32::try_from(index * segment).unwrap()), flags, part));
        }
        frames
    }
}

/// Sum of RFC 1071, not complemented.
pub fn sum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u64;
    for pair in bytes.chunks(2) {
        sum += u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap()
}
