//! Where the peer is, and what is said to others.

use super::*;

/// "Where the file limits the addresses, a datagram from another one is dropped and counted."
#[test]
fn from_an_address_that_the_file_excludes_nothing_is_taken_whatever_it_is() {
    let elsewhere = SocketAddr::from(([192, 0, 2, 1], 6001));
    for (address, port, other) in [(Some(home(1).ip()), None, home(9)), (None, Some(6000), elsewhere)] {
        let mut first = end(1, 2, 0, false, SecureState::default(), 1000);
        let mut second = end_of(2, 1, 0, &[Remote::Learned { address, port }], SecureState::default(), 1000);
        let mut foreign = 0;
        let mut refuses = |second: &mut End, datagram: &[u8]| {
            let before = (second.session.report_secure(0), second.has_session());
            assert!(second.receive(datagram, other, 5).is_empty() && second.frames.is_empty(), "{datagram:02x?}");
            assert_eq!((second.session.report_secure(0), second.has_session()), before);
            foreign += 1;
            assert_eq!(second.counters.paths[0].rx_dropped_foreign.get(), foreign);
        };
        let initiation = only(first.on_time(0));
        refuses(&mut second, &initiation);
        let response = only(second.receive(&initiation, home(1), 0));
        first.receive(&response, home(2), 1);
        // Neither confirms it a session that waits, nor is it given to the port by the one that there is.
        let frame = first.frame(1);
        refuses(&mut second, &frame);
        second.receive(&frame, home(1), 6);
        assert!(second.has_session() && second.frames == [[1; FRAME]]);
        let frame = first.frame(2);
        refuses(&mut second, &frame);
        second.receive(&frame, home(1), 7);
        assert_eq!(second.frames, [[2; FRAME]]);
        for nothing in [&[][..], &[9; 100], &[5; 20]] {
            refuses(&mut second, nothing);
        }
    }
}
