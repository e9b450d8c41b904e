//! JPEGs of every kind, truncated anywhere and damaged: only whole ones reach the pixel decoder.

use super::*;

const WHOLE: [(&str, &[u8]); 11] = [
    ("baseline 4:2:0", include_bytes!("../testdata/baseline-420.jpg")),
    ("baseline 4:2:2", include_bytes!("../testdata/baseline-422.jpg")),
    ("baseline 4:4:4", include_bytes!("../testdata/baseline-444.jpg")),
    ("own tables", include_bytes!("../testdata/optimised.jpg")),
    ("restart markers", include_bytes!("../testdata/restart.jpg")),
    ("a restart marker a row", include_bytes!("../testdata/restart-rows.jpg")),
    ("progressive", include_bytes!("../testdata/progressive.jpg")),
    ("progressive with restart markers", include_bytes!("../testdata/progressive-restart.jpg")),
    ("grey", include_bytes!("../testdata/grey.jpg")),
    ("progressive grey", include_bytes!("../testdata/progressive-grey.jpg")),
    ("CMYK", include_bytes!("../testdata/cmyk.jpg")),
];

fn first_scan(bytes: &[u8]) -> usize {
    let mut at = 2;
    loop {
        let segment = next_segment(bytes, at).unwrap().unwrap();
        at = segment.end;
        if segment.marker == SOS {
            return at;
        }
    }
}

#[test]
fn a_whole_jpeg_of_every_kind_is_read_to_its_last_block() {
    for (kind, bytes) in WHOLE {
        let written = canonical(bytes).unwrap_or_else(|why| panic!("{kind}: {why}"));
        assert_eq!(canonical(&written).unwrap(), written, "{kind}: written once more it is the same");
    }
}

#[test]
fn a_jpeg_of_any_kind_cut_anywhere_is_refused() {
    for (kind, bytes) in WHOLE {
        for end in (0..bytes.len() - 40).step_by(11).chain(bytes.len() - 40..bytes.len() - 2) {
            // Padding bits may be missing, and a last code may end in them.
            let last_bits = bytes.len() - 4;
            assert!(
                canonical(&bytes[..end]).is_err() || end > last_bits,
                "{kind}: cut at {end} of {}",
                bytes.len()
            );
        }
    }
}

#[test]
fn a_jpeg_cut_and_closed_with_an_end_marker_is_refused() {
    for (kind, bytes) in WHOLE {
        if kind.starts_with("progressive") {
            // A whole missing scan only leaves the picture less sharp.
            continue;
        }
        for end in (first_scan(bytes)..bytes.len() - 16).step_by(11) {
            let closed = [&bytes[..end], &[0xff, EOI]].concat();
            assert!(canonical(&closed).is_err(), "{kind}: cut at {end} of {}", bytes.len());
        }
    }
}

#[test]
fn only_the_end_marker_may_be_missing() {
    for (kind, bytes) in WHOLE {
        let whole = canonical(bytes).unwrap();
        assert_eq!(canonical(&bytes[..bytes.len() - 2]).unwrap(), whole, "{kind}: no end marker");
        let rubbish = [&bytes[..bytes.len() - 2], b"\0\0\0"].concat();
        assert_eq!(canonical(&rubbish).unwrap(), whole, "{kind}: padding in its place");
    }
}

#[test]
fn bytes_after_the_picture_are_ignored() {
    for (kind, bytes) in WHOLE {
        let followed = [bytes, WHOLE[0].1, b"\xff\xc4\0\x01"].concat();
        assert_eq!(canonical(&followed).unwrap(), canonical(bytes).unwrap(), "{kind}");
    }
}

#[test]
fn a_missing_or_wrong_restart_marker_is_damage() {
    for (_, bytes) in WHOLE.into_iter().filter(|(kind, _)| kind.contains("restart")) {
        let at = first_scan(bytes);
        let marker = at + bytes[at..].windows(2).position(|two| two[0] == 0xff && two[1] == 0xd0).unwrap();
        let mut other = bytes.to_vec();
        other[marker + 1] = 0xd3;
        assert!(canonical(&other).unwrap_err().contains("restart marker"));
        let mut missing = bytes.to_vec();
        missing.drain(marker..marker + 2);
        canonical(&missing).unwrap_err();
    }
}

#[test]
fn bytes_between_segments_and_broken_lengths_do_not_hide_the_picture() {
    let (_, bytes) = WHOLE[0];
    let exif_with_nonsense = b"\xff\xe1\0\x08Exif\0\0nonsense that the length leaves out";
    let odd = [&bytes[..2], &exif_with_nonsense[..], &bytes[2..]].concat();
    assert_eq!(canonical(&odd).unwrap(), canonical(bytes).unwrap());
    // A length that is too large swallows the tables: decoding is impossible.
    let swallowing = [&bytes[..2], b"\xff\xe1\x08\0Exif\0\0", &bytes[2..]].concat();
    canonical(&swallowing).unwrap_err();
}

#[test]
fn metadata_is_left_out_and_profiles_stay() {
    let (_, bytes) = WHOLE[0];
    let profile = b"\xff\xe2\0\x14ICC_PROFILE\0\x01\x01cafe";
    let given = [&bytes[..2], b"\xff\xe1\0\x08Exif\0\0", profile, b"\xff\xfe\0\x04hi", &bytes[2..]].concat();
    let written = canonical(&given).unwrap();
    assert_eq!(written.len(), canonical(bytes).unwrap().len() + profile.len());
    assert!(written.windows(profile.len()).any(|part| part == profile));
}
