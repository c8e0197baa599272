//! What a message says: its type, text, address of the media, and `message_obj` as WhatsApp's own
//! clients write it. Invariant: the `message_obj` of a message with media has 512 to 4,096 bytes.

use fastrand::Rng;

use super::super::put::put;
use super::super::text::Pool;
use super::write::Quirk;

/// Bytes of a `message_obj` with media.
const OBJECT_BYTES: std::ops::RangeInclusive<usize> = 512..=4_096;
/// Longest caption, bytes: fixed members and caption stay below the smallest object's room.
const CAPTION_MAX: usize = 160;

struct Media {
    object: &'static str,
    mimetype: &'static str,
    extension: &'static str,
    /// The member with the preview, or the wave form.
    preview: &'static str,
    has_caption: bool,
}

const MEDIA: [Media; 5] = [
    Media {
        object: "imageMessage",
        mimetype: "image/jpeg",
        extension: "jpg",
        preview: "jpegThumbnail",
        has_caption: true,
    },
    Media {
        object: "videoMessage",
        mimetype: "video/mp4",
        extension: "mp4",
        preview: "jpegThumbnail",
        has_caption: true,
    },
    Media {
        object: "audioMessage",
        mimetype: "audio/ogg; codecs=opus",
        extension: "ogg",
        preview: "waveform",
        has_caption: false,
    },
    Media {
        object: "documentMessage",
        mimetype: "application/pdf",
        extension: "pdf",
        preview: "jpegThumbnail",
        has_caption: true,
    },
    Media {
        object: "stickerMessage",
        mimetype: "image/webp",
        extension: "webp",
        preview: "pngThumbnail",
        has_caption: false,
    },
];

/// Where a media message lies.
pub(super) struct Place<'a> {
    pub(super) company: &'a str,
    pub(super) message: &'a str,
}

/// Writes `message_type`, `message_text`, `message_url` and `message_obj`, with a comma behind.
pub(super) fn put_media(out: &mut Vec<u8>, place: &Place<'_>, pool: &Pool, rng: &mut Rng) {
    let Media { object, mimetype, extension, preview, has_caption } = &MEDIA[draw_media(rng)];
    let Place { company, message } = place;
    let caption = if *has_caption { pool.text_within(rng, CAPTION_MAX) } else { "" };
    put!(out, "\"message_type\":\"", *object, "\",\"message_text\":\"", caption);
    put!(out, "\",\"message_url\":\"https://media.daisi.example/", *company, "/", *message, ".");
    put!(out, *extension, "\",\"message_obj\":");
    let start = out.len();
    put!(out, "{\"", *object, "\":{\"url\":\"https://mmg.whatsapp.net/o1/v/t62/", *message);
    put!(out, "\",\"mimetype\":\"", *mimetype, "\",\"fileLength\":\"", rng.u64(900..9_000_000));
    // Above 2^53: a reader that takes numbers for floats changes it.
    put!(out, "\",\"mediaKeyTimestamp\":", 9_007_199_254_740_993 + rng.u64(..1_000) * 2);
    put!(out, ",\"mediaKey\":\"", pool.base64(rng, 44), "\",\"caption\":\"", caption);
    put!(out, "\",\"", *preview, "\":\"");
    let end = rng.usize(OBJECT_BYTES.start() + 4..=*OBJECT_BYTES.end());
    let room = end.saturating_sub(out.len() - start + "\"}}".len()).max(64);
    put!(out, pool.base64(rng, room / 4 * 4), "\"}},");
}

fn draw_media(rng: &mut Rng) -> usize {
    // Pictures are the most of what is sent.
    match rng.u32(..10) {
        0..=4 => 0,
        n => n as usize % MEDIA.len(),
    }
}

/// As [`put_media`], of a message without any: text, answer, place or reaction.
pub(super) fn put_plain(out: &mut Vec<u8>, pool: &Pool, rng: &mut Rng, quirk: Quirk) {
    let kind = rng.u32(..50);
    let text = pool.text(rng);
    let name = match kind {
        0 => "locationMessage",
        1 => "reactionMessage",
        2..=7 => "extendedTextMessage",
        _ => "conversation",
    };
    put!(out, "\"message_type\":\"", name, "\",\"message_text\":\"");
    if kind > 1 {
        put!(out, text);
    }
    put!(out, "\",");
    if quirk == Quirk::Null {
        put!(out, "\"message_url\":null,");
    }
    put!(out, "\"message_obj\":{\"", name, "\":");
    match kind {
        0 => {
            put!(out, "{\"degreesLatitude\":-6.", rng.u64(..999_999));
            put!(out, ",\"degreesLongitude\":106.", rng.u64(..999_999), "}");
        }
        1 => put!(out, "{\"text\":\"🙏🏽\",\"key\":{\"id\":\"3EB0", rng.u64(..1 << 40), "\"}}"),
        2..=7 => {
            put!(out, "{\"text\":\"", text, "\",\"contextInfo\":{\"quotedMessage\":");
            put!(out, "{\"conversation\":\"", pool.text_within(rng, CAPTION_MAX), "\"}}}");
        }
        _ => put!(out, "\"", text, "\""),
    }
    put!(out, "},");
}
