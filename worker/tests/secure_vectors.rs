//! Tests of the secure wire against `tests/vectors/secure.json`. The adjacent `secure.py` generates these cases from the
//! specification with other code.

use aws_lc_rs::kem::{DecapsulationKey, ML_KEM_768};
use ethudp_worker::wire::secure::handshake::{Agreed, Answered, Bare, Initiator, Random, respond};
use ethudp_worker::wire::secure::keys::{KEY, Pair};
use ethudp_worker::wire::secure::message::{Form, KEM_CIPHERTEXT, KEM_KEY, Message, begin_initiation, parse};
use ethudp_worker::wire::secure::{CipherKind, Keys, Opening, Sending, content};
use privsep::ipc::Timestamp;
use serde_json::Value;

fn unhex(value: &Value) -> Vec<u8> {
    let text = value.as_str().unwrap();
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn key<const SIZE: usize>(value: &Value) -> [u8; SIZE] {
    unhex(value).try_into().unwrap()
}

fn index(value: &Value) -> u32 {
    value.as_u64().unwrap().try_into().unwrap()
}

fn vectors() -> Value {
    serde_json::from_str(include_str!("../../tests/vectors/secure.json")).unwrap()
}

/// Pairs of both ends, the initiator's first.
fn pairs(v: &Value) -> [Pair; 2] {
    let pair = |ours: &str, theirs: &str| {
        let (private, peer) = (key(&v[ours]["private"]), key(&v[theirs]["public"]));
        Pair::new(&private, peer, &key(&v["psk"]), key(&v["tunnel"])).unwrap()
    };
    [pair("initiator", "responder"), pair("responder", "initiator")]
}

fn fixed(v: &Value, end: &str) -> Random {
    let ephemeral: [u8; KEY] = key(&v[end]["ephemeral"]);
    Box::new(move |to: &mut [u8]| to.copy_from_slice(&ephemeral))
}

fn initiator(v: &Value, pair: &Pair, form: Form) -> Initiator {
    let kem = DecapsulationKey::new(&ML_KEM_768, &unhex(&v["kem"]["private"])).unwrap();
    let (sender, receiver) = (index(&v["initiator"]["index"]), index(&v["receiver index of the initiation"]));
    let header = begin_initiation(form, 3, sender, receiver, Timestamp(v["timestamp"].as_u64().unwrap()));
    Initiator::with_kem(pair, header, (kem, unhex(&v["kem"]["public"])), &mut fixed(v, "initiator")).unwrap()
}

fn assert_keys(keys: &Keys, session: &Value) {
    let expected: [[u8; 32]; 2] = [key(&session["to_responder"]), key(&session["to_initiator"])];
    assert_eq!([keys.sending, keys.receiving], expected);
}

#[test]
fn handshakes_match_vectors() {
    let v = vectors();
    let [ours, theirs] = pairs(&v);
    for (form, name) in [(Form::Long, "long"), (Form::Short, "short")] {
        let (form_v, mut initiator) = (&v[name], initiator(&v, &ours, form));
        assert_eq!(initiator.bytes(), unhex(&form_v["initiation"]), "{name}");
        let Some(Message::Initiation(initiation)) = parse(initiator.bytes()) else { panic!() };
        let responder = index(&v["responder"]["index"]);
        let (response, _) = respond(&theirs, &initiation, 3, responder, &mut fixed(&v, "responder")).unwrap();
        let recorded = unhex(&form_v["response"]);
        // The library draws the secret of the ciphertext.
        let same = if form == Form::Long { 44 } else { recorded.len() };
        assert_eq!(response[..same], recorded[..same], "{name}");
        assert_eq!(response.len(), recorded.len(), "{name}");
        assert!(ours.has_head_of_the_pair(&recorded) && ours.is_for_us(&recorded) && ours.is_of_the_pair(&recorded));
        let Some(Message::Response(response)) = parse(&recorded) else { panic!() };
        match initiator.take(&response).unwrap() {
            Answered::Keys(keys) => assert_keys(&keys, &form_v["sessions"][1]),
            Answered::Kem(kem) => {
                assert_eq!(kem.bytes(), unhex(&form_v["kem key"]));
                let answer = unhex(&form_v["kem ciphertext"]);
                let Some(Message::KemCiphertext(answer)) = parse(&answer) else { panic!() };
                assert_keys(&kem.take(&answer).unwrap(), &form_v["sessions"][1]);
            }
        }
    }
}

#[test]
fn keys_and_datagrams_match_vectors() {
    let v = vectors();
    let kem = &v["kem"];
    let (public, ciphertext) = (unhex(&kem["public"]), unhex(&kem["ciphertext"]));
    for (form, session) in ["long", "short"].iter().flat_map(|form| [(&v[form], 0), (&v[form], 1)]) {
        let session = &form["sessions"][session];
        let cipher = if session["cipher"] == 0 { CipherKind::ChaCha20Poly1305 } else { CipherKind::Aes256Gcm };
        let (initiator, responder) = (index(&v["initiator"]["index"]), index(&v["responder"]["index"]));
        let agreed = Agreed { cipher, initiator, responder };
        let bare = Bare::from_parts(key(&form["hash"]), key(&form["split"]), agreed);
        if form.get("kem key").is_some() {
            assert_eq!(bare.seal(KEM_KEY, responder, &public).unwrap(), unhex(&form["kem key"]));
            assert_eq!(bare.seal(KEM_CIPHERTEXT, initiator, &ciphertext).unwrap(), unhex(&form["kem ciphertext"]));
        }
        let [first, second] =
            [true, false].map(|first| bare.keys(&public, &ciphertext, &key(&kem["secret"]), first).unwrap());
        assert_keys(&first, session);
        assert_eq!((second.sending, second.receiving), (first.receiving, first.sending));
        let (sending, mut opening) = (Sending::new(&first), Opening::new(&second, 1));
        for case in session["datagrams"].as_array().unwrap() {
            let (content, expected) = (unhex(&case["content"]), unhex(&case["datagram"]));
            let mut datagram = [&[0; 16][..], &content, &[0; 16]].concat();
            sending.seal(0, &mut datagram).unwrap();
            assert_eq!(datagram, expected, "{}", case["kind"]);
            let length = datagram.len();
            let range = opening.open(0, &mut datagram, length).unwrap();
            assert_eq!(datagram[range], content);
            let is_known = !matches!(case["kind"].as_str(), Some("hello" | "unknown"));
            let parsed = content::parse(&content).unwrap();
            assert_eq!(parsed != content::Content::Unknown, is_known, "{}", case["kind"]);
        }
    }
}

/// Messages between this program and an independent implementation, written from the specification alone, in both forms and roles.
#[test]
fn independent_peer_sessions_match() {
    let all: Value = serde_json::from_str(include_str!("../../tests/vectors/secure-peer.json")).unwrap();
    for v in all.as_array().unwrap() {
        let (peer, program) = (&v["peer"], &v["program"]);
        let pair = |ours: &Value, theirs: &Value| {
            Pair::new(&key(&ours["private"]), key(&theirs["public"]), &key(&v["psk"]), key(&v["tunnel"])).unwrap()
        };
        let (at_program, at_peer) = (pair(program, peer), pair(peer, program));
        let (initiator, responder) = if v["peer begins"] == true { (peer, program) } else { (program, peer) };
        let cipher = if v["cipher"] == 0 { CipherKind::ChaCha20Poly1305 } else { CipherKind::Aes256Gcm };
        let agreed = Agreed { cipher, initiator: index(&initiator["index"]), responder: index(&responder["index"]) };
        let (bare, kem) = (Bare::from_parts(key(&v["hash"]), key(&v["split"]), agreed), &v["kem"]);
        let (public, ciphertext) = (unhex(&kem["public"]), unhex(&kem["ciphertext"]));
        let [first, second] =
            [true, false].map(|first| bare.keys(&public, &ciphertext, &key(&kem["secret"]), first).unwrap());
        assert_keys(&first, v);
        let mut openings = [Opening::new(&first, 1), Opening::new(&second, 1)];
        let mut opened = [0, 0];
        for message in v["messages"].as_array().unwrap() {
            let (mut bytes, by_peer) = (unhex(&message["bytes"]), message["from"] == "peer");
            let to_initiator = by_peer != (v["peer begins"] == true);
            match parse(&bytes) {
                Some(Message::Initiation(_) | Message::Response(_)) => {
                    let pair = if by_peer { &at_program } else { &at_peer };
                    assert!(pair.has_head_of_the_pair(&bytes) && pair.is_for_us(&bytes) && pair.is_of_the_pair(&bytes));
                }
                Some(Message::KemKey(_)) => {
                    assert_eq!(bytes, bare.seal(KEM_KEY, agreed.responder, &public).unwrap());
                }
                Some(Message::KemCiphertext(_)) => {
                    assert_eq!(bytes, bare.seal(KEM_CIPHERTEXT, agreed.initiator, &ciphertext).unwrap());
                }
                Some(Message::Data(_)) => {
                    let (length, which) = (bytes.len(), usize::from(!to_initiator));
                    let content = openings[which].open(0, &mut bytes, length).unwrap();
                    assert!(content::parse(&bytes[content]).is_some());
                    opened[which] += 1;
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(opened.iter().all(|&count| count >= 3), "{opened:?}");
    }
}
