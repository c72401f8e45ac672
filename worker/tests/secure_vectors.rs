//! The secure wire against `tests/vectors/secure.json`, which `secure.py` beside it has made from the specification with other code.

use aws_lc_rs::agreement::{PrivateKey, X25519};
use ethudp_worker::wire::secure::handshake::{Agreed, Bare, Initiator, respond};
use ethudp_worker::wire::secure::keys::{KEY, Pair, public};
use ethudp_worker::wire::secure::message::{Form, KEM_CIPHERTEXT, KEM_KEY, Message, parse};
use ethudp_worker::wire::secure::{CipherKind, Opening, Sending};
use privsep::ipc::Timestamp;
use serde_json::Value;

fn unhex(value: &Value) -> Vec<u8> {
    let text = value.as_str().unwrap();
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn key(value: &Value) -> [u8; KEY] {
    unhex(value).try_into().unwrap()
}

fn index(value: &Value) -> u32 {
    value["index"].as_u64().unwrap().try_into().unwrap()
}

fn vectors() -> Value {
    serde_json::from_str(include_str!("../../tests/vectors/secure.json")).unwrap()
}

#[test]
fn a_handshake_of_the_short_form_is_byte_for_byte_as_specified() {
    let v = vectors();
    let (i, r) = (&v["initiator"], &v["responder"]);
    let pair = |ours: &Value, theirs: &Value| {
        let theirs = PrivateKey::from_private_key(&X25519, &key(&theirs["private"])).unwrap();
        Pair::new(&key(&ours["private"]), public(&theirs).unwrap(), &key(&v["psk"])).unwrap()
    };
    let (ours, theirs) = (pair(i, r), pair(r, i));
    let fixed = |end: &Value| {
        let ephemeral = key(&end["ephemeral"]);
        Box::new(move |to: &mut [u8]| to.copy_from_slice(&ephemeral))
    };
    let seconds = v["seconds"].as_u64().unwrap();
    let nanoseconds = v["nanoseconds"].as_u64().unwrap().try_into().unwrap();
    let timestamp = Timestamp { seconds, nanoseconds };
    let initiator = Initiator::new(&ours, Form::Short, 3, index(i), timestamp, &mut (fixed(i) as _)).unwrap();
    assert_eq!(initiator.bytes(), unhex(&v["initiation"]));
    let Some(Message::Initiation(initiation)) = parse(initiator.bytes()) else { panic!() };
    let (response, _) = respond(&theirs, &initiation, 3, index(r), &mut (fixed(r) as _)).unwrap();
    assert_eq!(response, unhex(&v["response"]));
}

#[test]
fn keys_and_what_they_seal_are_byte_for_byte_as_specified() {
    let v = vectors();
    let kem = &v["kem"];
    let (public, ciphertext) = (unhex(&kem["public"]), unhex(&kem["ciphertext"]));
    for session in v["sessions"].as_array().unwrap() {
        let cipher = if session["cipher"] == 0 { CipherKind::ChaCha20Poly1305 } else { CipherKind::Aes256Gcm };
        let agreed = Agreed { cipher, initiator: index(&v["initiator"]), responder: index(&v["responder"]) };
        let bare = Bare::from_parts(key(&v["hash"]), unhex(&v["split"]).try_into().unwrap(), agreed);
        for (kind, receiver, body, message) in [
            (KEM_KEY, agreed.responder, &public, "message3"),
            (KEM_CIPHERTEXT, agreed.initiator, &ciphertext, "message4"),
        ] {
            assert_eq!(bare.seal(kind, receiver, body).unwrap(), unhex(&kem[message]), "{message}");
        }
        let [first, second] =
            [true, false].map(|first| bare.keys(&public, &ciphertext, &key(&kem["secret"]), first).unwrap());
        assert_eq!((first.sending, first.receiving), (key(&session["to_responder"]), key(&session["to_initiator"])));
        assert_eq!((second.sending, second.receiving), (first.receiving, first.sending));
        let (sending, mut opening) = (Sending::new(&first), Opening::new(&second));
        for case in session["datagrams"].as_array().unwrap() {
            let (content, expected) = (unhex(&case["content"]), unhex(&case["datagram"]));
            let mut datagram = [&[0; 16][..], &content, &[0; 16]].concat();
            sending.seal(0, &mut datagram).unwrap();
            assert_eq!(datagram, expected, "{}", case["kind"]);
            let length = datagram.len();
            let range = opening.open(&mut datagram, length).unwrap();
            assert_eq!(datagram[range], content);
            assert!(ethudp_worker::wire::secure::content::parse(&content).is_some(), "{}", case["kind"]);
        }
    }
}
