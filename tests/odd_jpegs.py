"""JPEGs that are odd in ways that are seldom met, each with what browsers show."""

import io
import struct
from itertools import pairwise

from tests.photos import (
    Case,
    colourful,
    entry,
    exif_of,
    grey_profile,
    photo,
    saved,
    turned,
    wide_gamut,
    with_segment,
)

Plain = dict[str, bytes]
"""Files by name that others are compared with."""


def of_exif(plain: Plain) -> dict[str, Case]:
    short = entry(0x112, 3, 1, struct.pack("<HH", 6, 0))
    invalid = entry(0x112, 3, 1, struct.pack("<HH", 9, 0))
    first = b"Exif\0\0II*\0\x08\0\0\0"
    asis: dict[str, bytes] = {
        "loop_of_other_directory": exif_of(entry(0x8769, 4, 1, struct.pack("<I", 8))),
        "offset_beyond": b"Exif\0\0II*\0" + b"\xff" * 4 + bytes(40),
        "offset_0": b"Exif\0\0II*\0" + bytes(44),
        "orientation_as_long": exif_of(entry(0x112, 4, 1, struct.pack("<I", 6))),
        "orientation_as_signed": exif_of(entry(0x112, 8, 1, struct.pack("<HH", 6, 0))),
        "orientation_without_value": exif_of(entry(0x112, 3, 0, struct.pack("<HH", 6, 0))),
        "orientation_of_the_thumbnail": first + struct.pack("<HI", 0, 14) + struct.pack("<H", 1) + short + bytes(4),
        "orientation_cut_off": turned(6)[:-8],
        "orders_mixed": b"Exif\0\0MM\0*\x08\0\0\0\1\0" + short + bytes(4),
        "of_big_tiff": b"Exif\0\0II+\0" + turned(6)[10:],
        "name_in_capitals": b"EXIF\0\0" + turned(6)[6:],
    }
    sideways: dict[str, bytes] = {
        "directory_follows_itself": first + struct.pack("<H", 1) + short + struct.pack("<I", 8),
        "maker_note_of_everything": exif_of(short, entry(0x927C, 7, 60000, struct.pack("<I", 8)), after=bytes(50000)),
        "big_endian": b"Exif\0\0MM\0*\0\0\0\x08\0\1" + struct.pack(">HHIHH", 0x112, 3, 1, 6, 0) + bytes(4),
        "more_entries_than_there_are": first + b"\xff\xff" + short + bytes(4),
        "invalid_before_valid": exif_of(invalid, short),
        "byte_before_valid": exif_of(entry(0x112, 1, 1, b"\3\0\0\0"), short),
        "directory_at_100": b"Exif\0\0II*\0" + struct.pack("<I", 100) + bytes(92) + b"\1\0" + short + bytes(4),
        "no_next_directory": turned(6)[:-4],
        "with_a_thumbnail": exif_of(short, after=saved("JPEG", photo().resize((80, 60)))),
    }
    jpeg = plain["image.jpg"]
    return {f"exif_{name}.jpg": Case(with_segment(jpeg, 0xE1, b), "image.jpg") for name, b in asis.items()} | {
        f"exif_{name}.jpg": Case(with_segment(jpeg, 0xE1, b), "sideways.jpg") for name, b in sideways.items()
    }


def _segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def of_segments(plain: Plain) -> dict[str, Case]:
    jpeg = plain["image.jpg"]
    bare, scan = jpeg[:2] + jpeg[20:], jpeg.index(b"\xff\xda")
    cmyk = saved("JPEG", colourful().convert("CMYK"), quality=95)
    at = cmyk.index(b"\xff\xee")
    unnamed = cmyk[:at] + cmyk[at + 2 + int.from_bytes(cmyk[at + 2 : at + 4], "big") :]
    pictures = io.BytesIO()
    colourful().save(pictures, "MPO", save_all=True, append_images=[photo().rotate(180)], quality=95, subsampling=0)

    def adobe(transform: int) -> bytes:
        return _segment(0xEE, b"Adobe\0\x64\0\0\0\0" + bytes([transform]))

    asis = {
        "fill_bytes": jpeg[:20] + b"\xff" * 500 + jpeg[20:],
        "rubbish_between_segments": jpeg[:20] + b"\0\0rubbish\0" + jpeg[20:],
        "segment_of_no_length": jpeg[:20] + b"\xff\xe5\0\0" + jpeg[20:],
        "giant_xmp": jpeg[:20] + _segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + b"<x>" * 20000) * 20 + jpeg[20:],
        "page_in_comment": with_segment(jpeg, 0xFE, b"<html><script>alert(1)</script>"),
        "archive_behind": jpeg + b"PK\3\4" + bytes(2000),
        "video_behind": jpeg + b"\0\0\0\x18ftypmp42" + bytes(4000),
        "photo_behind": jpeg + saved("JPEG", photo().rotate(180)),
        "several_pictures": pictures.getvalue(),
        "adobe_2_of_three_colours": bare[:2] + adobe(2) + bare[2:],
        "adobe_9_of_three_colours": bare[:2] + adobe(9) + bare[2:],
        "adobe_0_beside_jfif": jpeg[:20] + adobe(0) + jpeg[20:],
        "adobe_short": bare[:2] + _segment(0xEE, b"Adobe\0\x64") + bare[2:],
        "neither_jfif_nor_adobe": bare,
        "rubbish_before_the_end": jpeg[:-2] + b"rubbish" + jpeg[-2:],
        "dimensions_by_sof1": jpeg.replace(b"\xff\xc0", b"\xff\xc1", 1),
    }
    twelve = bytearray(asis["dimensions_by_sof1"])
    twelve[twelve.index(b"\xff\xc1") + 4] = 12
    made = {f"{name}.jpg": Case(data, near="image.jpg") for name, data in asis.items()}
    made["exif_behind_the_tables.jpg"] = Case(jpeg[:scan] + _segment(0xE1, turned(6)) + jpeg[scan:], "sideways.jpg")
    for code in (None, 0, 1, 2):
        said = b"" if code is None else adobe(code)
        like = "cmyk_as_ycck.jpg" if code in (1, 2) else "cmyk.jpg"
        made[f"cmyk_adobe_{code}.jpg"] = Case(unnamed[:2] + said + unnamed[2:], like)
    made["cmyk.jpg"] = Case(cmyk, "cmyk.jpg")
    made["cmyk_as_ycck.jpg"] = Case(unnamed[:2] + adobe(2) + unnamed[2:], "cmyk_as_ycck.jpg")
    return made | {
        "of_12_bits.jpg": Case(bytes(twelve), refused="unsupported_type"),
        "lossless.jpg": Case(jpeg.replace(b"\xff\xc0", b"\xff\xc3", 1), refused="unsupported_type"),
        "arithmetic.jpg": Case(jpeg.replace(b"\xff\xc0", b"\xff\xc9", 1), refused="unsupported_type"),
        "nothing_before_jpeg.jpg": Case(b"\0" + jpeg, refused="unsupported_type"),
        "pdf_before_jpeg.jpg": Case(b"%PDF-1.4\n" + jpeg, refused="unsupported_type"),
        "no_frame.jpg": Case(_without(jpeg, 0xC0), refused="corrupt"),
        "no_height.jpg": Case(_of_height(jpeg, 0), refused="too_small"),
        "more_rows_than_data.jpg": Case(_of_height(jpeg, 480), refused="corrupt"),
    }


def _without(jpeg: bytes, marker: int) -> bytes:
    kept, at = jpeg[:2], 2
    while jpeg[at + 1] != 0xDA:
        length = 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
        kept += jpeg[at : at + length] if jpeg[at + 1] != marker else b""
        at += length
    return kept + jpeg[at:]


def _of_height(jpeg: bytes, height: int) -> bytes:
    at = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:at] + struct.pack(">H", height) + jpeg[at + 2 :]


def of_profiles(plain: Plain) -> dict[str, Case]:
    wide, linear, jpeg = wide_gamut(), wide_gamut(1.0), plain["moved.jpg"]
    parts = [wide[:200], wide[200:400], wide[400:]]

    def put(*bodies: tuple[int, int, bytes]) -> bytes:
        found = b"".join(_segment(0xE2, b"ICC_PROFILE\0" + bytes([no, of]) + body) for no, of, body in bodies)
        return jpeg[:20] + found + jpeg[20:]

    used = {
        "in_parts": put(*((i + 1, 3, part) for i, part in enumerate(parts))),
        "parts_shuffled": put((3, 3, parts[2]), (1, 3, parts[0]), (2, 3, parts[1])),
        "two_profiles": put((1, 1, wide), (1, 1, linear)),
        "bytes_behind": put((1, 1, wide + bytes(999))),
        "version_2": put((1, 1, wide[:8] + b"\x02\x40\0\0" + wide[12:])),
        "class_link": put((1, 1, wide[:12] + b"link" + wide[16:])),
        "class_printer": put((1, 1, wide[:12] + b"prtr" + wide[16:])),
    }
    unused = {
        "part_missing": put((1, 3, parts[0]), (3, 3, parts[2])),
        "part_twice": put((1, 3, parts[0]), (1, 3, parts[0]), (2, 3, parts[1]), (3, 3, parts[2])),
        "count_wrong": put(*((i + 1, 7, part) for i, part in enumerate(parts))),
        "count_0": put((1, 0, wide)),
        "cut": put((1, 1, wide[: len(wide) // 2])),
        "header_only": put((1, 1, wide[:128])),
        "larger_than_it_is": put((1, 1, struct.pack(">I", 20000) + wide[4:])),
        "version_5": put((1, 1, wide[:8] + b"\5\0\0\0" + wide[12:])),
        "no_signature": put((1, 1, wide.replace(b"acsp", b"xxxx"))),
        "no_curve": put((1, 1, wide.replace(b"rTRC", b"xTRC"))),
        "of_cmyk": put((1, 1, wide[:16] + b"CMYK" + wide[20:])),
        "of_greys": put((1, 1, grey_profile(1.0))),
    }
    return {f"profile_{name}.jpg": Case(data, near="image.jpg") for name, data in used.items()} | {
        f"profile_{name}.jpg": Case(data, "moved.jpg") for name, data in unused.items()
    }


def of_data(plain: Plain) -> dict[str, Case]:
    rows = saved("JPEG", colourful(), quality=90, restart_marker_rows=1)
    marks = [i for i, (one, two) in enumerate(pairwise(rows)) if one == 0xFF and 0xD0 <= two <= 0xD7]
    waves = saved("JPEG", colourful(), quality=90, progressive=True)
    starts = [i for i in range(len(waves)) if waves.startswith(b"\xff\xda", i)]
    renumbered = bytearray(rows)
    renumbered[marks[3] + 1] = 0xD0 + ((renumbered[marks[3] + 1] + 3) & 7)
    jpeg = plain["image.jpg"]
    middle = len(jpeg) // 2
    refused = {
        "zeros_from_the_middle": jpeg[:middle] + bytes(len(jpeg) - middle),
        "end_in_the_middle": jpeg[:middle] + b"\xff\xd9" + jpeg[middle:],
        "two_passes_only": waves[: starts[2]] + b"\xff\xd9",
        "rows_zeroed": rows[: marks[3] + 2] + bytes(marks[8] - marks[3] - 2) + rows[marks[8] :],
    }
    return {
        "rows.jpg": Case(rows, "rows.jpg"),
        "restart_number_wrong.jpg": Case(bytes(renumbered), "restart_number_wrong.jpg"),
        "waves.jpg": Case(waves, "waves.jpg"),
        "waves_exif_between_passes.jpg": Case(
            waves[: starts[1]] + _segment(0xE1, turned(6)) + waves[starts[1] :], "waves.jpg"
        ),
    } | {f"{name}.jpg": Case(data, refused="corrupt") for name, data in refused.items()}
