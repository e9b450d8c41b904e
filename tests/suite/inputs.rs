//! Pictures that reach providers: whole, upright, with masks in the same coordinates; damaged ones are never
//! sent.

use std::io::Cursor;

use image::codecs::png::PngEncoder;
use image::metadata::Orientation;
use image::{DynamicImage, GrayImage, ImageDecoder, ImageEncoder, ImageReader, Luma, Rgb, RgbImage};
use retouch_tests::paid::{Paid, task};
use retouch_tests::pictures::{decode, drawing};
use retouch_tests::services::Port;
use retouch_tests::site::{Site, TaskRow};
use retouch_tests::stand_in::Limits;
use retouch_tests::tasks::data;
use serde_json::{Value, json};

const CUT_JPEG: &[u8] = include_bytes!("inputs/cut70.jpg");
const CUT_PNG: &[u8] = include_bytes!("inputs/cut.png");
const NO_END_MARKER: &[u8] = include_bytes!("inputs/noeoi.jpg");
const MASK_UPRIGHT: &[u8] = include_bytes!("inputs/mask_upright.png");
const MASK_STORED: &[u8] = include_bytes!("inputs/mask_stored.png");
const TWO_PICTURES: &[u8] = include_bytes!("inputs/photo.mpo");

const OPENAI: &str = "[models.\"gpt-image-1.5\"]\neditor = \"openai\"\nprice = \"0.04\"\n\
                      [routes.paint]\nmodel = \"gpt-image-1.5\"\n";
/// Edit type and model of every API style.
const PAID_EDITORS: [(&str, Option<&str>); 5] = [
    ("description_edit", None),
    ("edit", Some("wan2.5-i2i-preview")),
    ("edit", None),
    ("edit", Some("wan2.7-image")),
    ("paint", None),
];
const SIZE: (u32, u32) = (600, 520);

async fn paid() -> Paid {
    let paid = Paid::of(Site::in_one_file().await).await;
    paid.provider.set(|settings| settings.limits = Limits::Off);
    paid
}

async fn publish(paid: &Paid, id: &str, edit: (&str, Option<&str>), images: &[Vec<u8>], mask: Option<&[u8]>) {
    let mut message = task(id, edit.0, "make it winter", images);
    if let Some(model) = edit.1 {
        message["model"] = json!(model);
    }
    if let Some(mask) = mask {
        message["mask"] = data(mask);
    }
    if edit.0 == "invert" {
        message["prompt"] = json!("");
    }
    paid.site.publish(&message).await;
}

fn code(image: &Value) -> &str {
    image["error"]["code"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn a_damaged_picture_is_sent_to_no_provider_and_fails_alone() {
    let paid = paid().await;
    let _worker = paid.worker(OPENAI).await;
    let images = [CUT_JPEG, CUT_PNG, NO_END_MARKER].map(<[u8]>::to_vec);
    for (nth, edit) in PAID_EDITORS.into_iter().enumerate() {
        publish(&paid, &format!("t{nth}"), edit, &images, None).await;
    }
    for (nth, edit) in PAID_EDITORS.into_iter().enumerate() {
        let row = paid.site.ended(&format!("t{nth}")).await;
        let codes: Vec<_> = row.images.iter().map(code).collect();
        assert_eq!(codes, ["undecodable", "undecodable", ""], "{edit:?}: {row:?}");
        assert_eq!((row.status.as_str(), row.counts), ("partial", [0, 0, 1, 2]), "{edit:?}");
    }
    let sent = paid.provider.pictures();
    assert_eq!((sent.len(), paid.provider.ledger().received.len(), paid.billed()), (5, 5, 5));
    assert!(sent.iter().all(|(image, _)| image == NO_END_MARKER), "the whole one goes out as it came");
    assert_eq!(paid.site.dead_letters(10).await[0], "undecodable t0");
    paid.site.nothing_left().await;
}

/// A PNG with an EXIF orientation, stored so that it is upright when it is applied.
fn oriented(upright: impl Into<DynamicImage>, orientation: u8) -> Vec<u8> {
    let inverse = match orientation {
        6 => 8,
        8 => 6,
        own => own,
    };
    let mut image: DynamicImage = upright.into();
    image.apply_orientation(Orientation::from_exif(inverse).unwrap());
    let mut exif = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
    exif.extend([orientation, 0, 0, 0, 0, 0, 0, 0]);
    let mut bytes = Vec::new();
    let mut encoder = PngEncoder::new(&mut bytes);
    encoder.set_exif_metadata(exif).unwrap();
    image.write_with_encoder(encoder).unwrap();
    bytes
}

/// The pixels as stored; a file with an EXIF rotation must not reach a provider.
fn stored_upright(bytes: &[u8]) -> DynamicImage {
    let mut decoder =
        ImageReader::new(Cursor::new(bytes)).with_guessed_format().unwrap().into_decoder().unwrap();
    assert_eq!(decoder.orientation().unwrap(), Orientation::NoTransforms, "it would be turned once more");
    DynamicImage::from_decoder(decoder).unwrap()
}

/// The left half of the upright picture is to be edited.
fn left_half((width, height): (u32, u32)) -> GrayImage {
    GrayImage::from_fn(width, height, |x, _| Luma([if x < width / 2 { 255 } else { 0 }]))
}

fn png(image: &GrayImage) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

fn negative(picture: &RgbImage, where_: impl Fn(u32) -> bool) -> RgbImage {
    let mut made = picture.clone();
    for (x, _, Rgb(pixel)) in made.enumerate_pixels_mut() {
        if where_(x) {
            *pixel = pixel.map(|value| 255 - value);
        }
    }
    made
}

const MASKED: [(&str, &str); 3] =
    [("functions", "description_edit_with_mask"), ("openai", "paint"), ("local", "invert")];
const UNMASKED: [(&str, &str); 4] =
    [("functions", "description_edit"), ("messages", "edit"), ("openai", "paint"), ("local", "invert")];

fn assert_completed(row: &TaskRow, id: &str) {
    assert_eq!(row.status, "completed", "{id}: {row:?}");
    let image = &row.images[0];
    assert_eq!((&image["width"], &image["height"]), (&json!(SIZE.0), &json!(SIZE.1)), "{id}");
}

#[tokio::test]
async fn every_editor_gets_upright_pixels_and_masks() {
    let paid = paid().await;
    let _worker = paid.worker(OPENAI).await;
    let mask = left_half(SIZE);
    for orientation in 1..=8 {
        let upright = drawing(u64::from(orientation), SIZE.0, SIZE.1);
        let image = [oriented(upright.clone(), orientation)];
        for (editor, edit_type) in UNMASKED {
            publish(&paid, &format!("{editor}-{orientation}"), (edit_type, None), &image, None).await;
        }
        // A mask that is turned itself counts as it is shown, too.
        let masks = [png(&mask), oriented(mask.clone(), 3)];
        for (editor, edit_type) in MASKED {
            let mask = &masks[usize::from(orientation % 2)];
            publish(&paid, &format!("{editor}-mask-{orientation}"), (edit_type, None), &image, Some(mask))
                .await;
        }
        for (editor, _) in UNMASKED {
            let id = format!("{editor}-{orientation}");
            let row = paid.site.ended(&id).await;
            assert_completed(&row, &id);
            if editor == "local" {
                assert_eq!(
                    decode(&paid.site.result(&row.images[0])),
                    rgba(&negative(&upright, |_| true)),
                    "{id}"
                );
            }
        }
        for (editor, _) in MASKED {
            let id = format!("{editor}-mask-{orientation}");
            let row = paid.site.ended(&id).await;
            assert_completed(&row, &id);
            if editor == "local" {
                let made = negative(&upright, |x| x < SIZE.0 / 2);
                assert_eq!(decode(&paid.site.result(&row.images[0])), rgba(&made), "{id}");
            }
        }
        let sent = paid.provider.pictures();
        let sent = &sent[usize::from(orientation - 1) * 5..];
        assert_eq!(sent.len(), 5, "three without a mask and two with one");
        for (bytes, _) in sent {
            assert!(
                stored_upright(bytes).to_rgb8() == upright,
                "other pixels were sent: orientation {orientation}"
            );
            assert!(orientation != 1 || *bytes == image[0], "what is upright goes out as it came");
        }
        let masks: Vec<_> =
            sent.iter().filter_map(|(_, mask)| mask.as_ref()).map(|mask| stored_upright(mask)).collect();
        assert_eq!(masks.len(), 2);
        for sent in masks {
            // OpenAI's masks use transparency.
            let white = |x, y| match sent.color().has_alpha() {
                true => 255 - sent.to_rgba8().get_pixel(x, y)[3],
                false => sent.to_luma8().get_pixel(x, y)[0],
            };
            let seen = [(0, 0), (299, 519), (300, 0), (599, 519)].map(|(x, y)| white(x, y));
            assert_eq!(seen, [255, 255, 0, 0], "orientation {orientation}");
        }
    }
    assert_eq!(paid.billed(), 40);
    paid.site.nothing_left().await;
}

fn rgba(image: &RgbImage) -> image::RgbaImage {
    DynamicImage::from(image.clone()).into_rgba8()
}

#[tokio::test]
async fn a_mask_drawn_on_the_stored_picture_is_refused_with_the_reason() {
    let paid = paid().await;
    let _worker = paid.worker(OPENAI).await;
    let stored = png(&left_half((SIZE.1, SIZE.0)));
    for orientation in 5..=8 {
        let image = [oriented(drawing(u64::from(orientation), SIZE.0, SIZE.1), orientation)];
        for (editor, edit_type) in MASKED {
            let id = format!("{editor}-{orientation}");
            publish(&paid, &id, (edit_type, None), &image, Some(&stored)).await;
            let row = paid.site.ended(&id).await;
            assert_eq!(code(&row.images[0]), "invalid_mask", "{id}: {row:?}");
            assert_eq!(
                row.images[0]["error"]["message"],
                "mask: 520 × 600 fits the stored picture, not the upright one (600 × 520); turn the mask upright",
                "{id}"
            );
        }
    }
    // A square picture's mask fits both ways, and counts as upright.
    let square = oriented(drawing(9, 512, 512), 6);
    publish(&paid, "square", (MASKED[0].1, None), &[square], Some(&png(&left_half((512, 512))))).await;
    assert_eq!(paid.site.ended("square").await.status, "completed");
    assert_eq!(paid.billed(), 1);
}

#[tokio::test]
async fn a_phones_photo_and_its_mask_go_out_upright_as_jpeg() {
    let paid = paid().await;
    let _worker = paid.worker(OPENAI).await;
    for (name, photo) in
        [("o6", &include_bytes!("inputs/o6.jpg")[..]), ("o8", include_bytes!("inputs/o8.jpg"))]
    {
        for (editor, edit_type) in &MASKED[..2] {
            let id = format!("{name}-{editor}");
            publish(&paid, &id, (edit_type, None), &[photo.to_vec()], Some(MASK_UPRIGHT)).await;
            let row = paid.site.ended(&id).await;
            assert_eq!(row.status, "completed", "{id}: {row:?}");
            let id = format!("{id}-stored");
            publish(&paid, &id, (edit_type, None), &[photo.to_vec()], Some(MASK_STORED)).await;
            let row = paid.site.ended(&id).await;
            let message = row.images[0]["error"]["message"].as_str().unwrap_or_default();
            assert!(message.starts_with("mask: 800 × 600 fits the stored picture"), "{message}");
        }
        let sent = paid.provider.pictures();
        for (bytes, _) in &sent[sent.len() - 2..] {
            assert_eq!(image::guess_format(bytes).unwrap(), image::ImageFormat::Jpeg);
            let mut upright = image::load_from_memory(photo).unwrap();
            upright.apply_orientation(Orientation::from_exif(if name == "o6" { 6 } else { 8 }).unwrap());
            let (sent, upright) = (stored_upright(bytes).to_rgb8(), upright.to_rgb8());
            assert_eq!(sent.dimensions(), (600, 800));
            let sum: u64 = sent.iter().zip(upright.iter()).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
            assert!(sum < 2 * sent.len() as u64, "{name}: {sum} over {} values", sent.len());
        }
    }
    assert_eq!(paid.billed(), 4);
}

#[tokio::test]
async fn a_picture_that_a_provider_fetches_is_the_upright_one() {
    let paid = paid().await;
    let port = Port::free().unwrap();
    let address = format!("127.0.0.1:{}", port.number());
    let public = format!("http://{address}/blobs/");
    let http = [("RETOUCH_HTTP", address.as_str()), ("RETOUCH_PUBLIC_URL", public.as_str())];
    let _worker = paid.worker_with("input = \"url\"\n", &http).await;
    let upright = drawing(1, SIZE.0, SIZE.1);
    publish(&paid, "t", ("description_edit", None), &[oriented(upright.clone(), 6)], None).await;
    assert_completed(&paid.site.ended("t").await, "t");
    let sent = paid.provider.pictures();
    assert!(sent.len() == 1 && stored_upright(&sent[0].0).to_rgb8() == upright);
}

#[tokio::test]
async fn the_first_of_several_pictures_is_edited_and_white_space_taken() {
    let paid = paid().await;
    let _worker = paid.worker(OPENAI).await;
    publish(&paid, "mpo", ("paint", None), &[TWO_PICTURES.to_vec()], None).await;
    assert_eq!(paid.site.ended("mpo").await.status, "completed");
    // The same bytes, spelt with white space: a hit.
    let mut message = task("spaces", "paint", "make it winter", &[]);
    let uri = data(TWO_PICTURES)["data"].as_str().unwrap().replace("base64,", "base64, ");
    let (head, tail) = uri.split_at(100);
    message["images"] = json!([{ "data": format!("{head}\r\n{tail}\n") }]);
    paid.site.publish(&message).await;
    let row = paid.site.ended("spaces").await;
    assert_eq!(row.counts, [1, 0, 0, 0], "{row:?}");
    assert_eq!(paid.billed(), 1);
}
