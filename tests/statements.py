"""Pictures that say how they were made, as generators, editors and cameras write it; every prompt is `SECRET`."""

import io
import json
import struct
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

SECRET = "a secret teapot on velvet"
NEWSCODES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
DESCRIPTION, MAKE, MODEL, SOFTWARE, ARTIST, USER_COMMENT = 0x010E, 0x010F, 0x0110, 0x0131, 0x013B, 0x9286
A1111 = f"{SECRET}\nNegative prompt: ugly\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1234, Size: 512x512"
COMFY = json.dumps({"3": {"class_type": "KSampler", "inputs": {"seed": 5, "text": SECRET}}})
JOB = f"{SECRET} --v 7 Job ID: 01234567-89ab-cdef-0123-456789abcdef"

_pixels = np.random.default_rng(3).integers(0, 255, (40, 40, 3), dtype=np.uint8)
PICTURE = Image.fromarray(_pixels)


def encode(fmt: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    PICTURE.save(buffer, fmt, **options)
    return buffer.getvalue()


def with_xmp(fmt: str, properties: str, body: str = "") -> bytes:
    """XMP with `properties` as attributes of its description and `body` inside it."""
    packet = (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
        'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
        'xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
        f'xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/" xmlns:xmp="http://ns.adobe.com/xap/1.0/" {properties}>'
        f'{body}</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
    ).encode()
    if fmt == "PNG":
        info = PngImagePlugin.PngInfo()
        info.add_itxt("XML:com.adobe.xmp", packet.decode())
        return encode("PNG", pnginfo=info)
    if fmt == "GIF":
        # as Adobe writes it: the packet, then a ramp of bytes on which readers of sub-blocks land
        plain = encode("GIF")
        ramp = b"\x01" + bytes(range(255, -1, -1)) + b"\x00"
        at = 13 + 3 * (2 << (plain[10] & 7))
        return plain[:at] + b"\x21\xff\x0bXMP DataXMP" + packet + ramp + plain[at:]
    return encode(fmt, xmp=packet)


def with_exif(fmt: str, fields: dict[int, str | bytes]) -> bytes:
    exif = Image.Exif()
    # an empty first directory counts as no EXIF when Pillow writes AVIF
    exif[0x0128] = 2
    for tag, value in fields.items():
        if tag == USER_COMMENT:
            exif.get_ifd(0x8769)[tag] = value
        else:
            exif[tag] = value
    return encode(fmt, exif=exif)


def with_text(key: str, value: str, *, deflated: bool = False, international: bool = False) -> bytes:
    info = PngImagePlugin.PngInfo()
    (info.add_itxt if international else info.add_text)(key, value, zip=deflated)
    return encode("PNG", pnginfo=info)


def with_iim(*datasets: tuple[int, str]) -> bytes:
    """A JPEG with IPTC-IIM datasets of record 2 in Photoshop's resources."""
    records = b"".join(b"\x1c\x02" + bytes([n]) + struct.pack(">H", len(v)) + v.encode() for n, v in datasets)
    resource = b"8BIM\x04\x04\0\0" + struct.pack(">I", len(records)) + records + bytes(len(records) & 1)
    return with_segment(0xED, b"Photoshop 3.0\0" + resource)


def with_segment(marker: int, body: bytes) -> bytes:
    jpeg = encode("JPEG")
    return jpeg[:2] + bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


def user_comment(text: str, encoding: str) -> bytes:
    head = b"ASCII\0\0\0" if encoding == "ascii" else b"UNICODE\0"
    return head + text.encode(encoding)


def source_type(term: str) -> str:
    return f'Iptc4xmpExt:DigitalSourceType="{term}"'


def raw_profile(kind: str, body: bytes) -> bytes:
    """ImageMagick's way to keep EXIF or IPTC in a PNG's text."""
    digits = body.hex()
    lines = "\n".join(digits[i : i + 72] for i in range(0, len(digits), 72))
    return with_text(f"Raw profile type {kind}", f"\n{kind}\n{len(body):8}\n{lines}\n", deflated=True)


def _exif_bytes(fields: dict[int, str]) -> bytes:
    exif = Image.Exif()
    for tag, value in fields.items():
        exif[tag] = value
    return exif.tobytes()


AIGC = json.dumps({"Label": "1", "ContentProducer": "00119", "ProduceID": "x"})
_ELEMENT = "<Iptc4xmpExt:DigitalSourceType>\n {}\n</Iptc4xmpExt:DigitalSourceType>"

FILES: dict[str, tuple[bytes, str, str]] = {
    # name: (file, code of the source, what it declares)
    **{
        f"iptc-{fmt}": (
            with_xmp(fmt, source_type(NEWSCODES + "trainedAlgorithmicMedia")),
            "digital_source_type",
            "ai_generated",
        )
        for fmt in ("JPEG", "PNG", "WEBP", "AVIF", "GIF")
    },
    "iptc-bare-term": (with_xmp("JPEG", source_type("TrainedAlgorithmicMedia")), "digital_source_type", "ai_generated"),
    "iptc-blank": (
        with_xmp("JPEG", source_type(f" {NEWSCODES}trainedAlgorithmicMedia ")),
        "digital_source_type",
        "ai_generated",
    ),
    "iptc-element": (
        with_xmp("JPEG", "", _ELEMENT.format(NEWSCODES + "trainedAlgorithmicMedia")),
        "digital_source_type",
        "ai_generated",
    ),
    "iptc-resource": (
        with_xmp("PNG", "", f'<Iptc4xmpExt:DigitalSourceType rdf:resource="{NEWSCODES}trainedAlgorithmicMedia"/>'),
        "digital_source_type",
        "ai_generated",
    ),
    "iptc-composite": (
        with_xmp("JPEG", source_type(NEWSCODES + "compositeWithTrainedAlgorithmicMedia")),
        "digital_source_type",
        "ai_edited",
    ),
    "iptc-capture": (with_xmp("JPEG", source_type(NEWSCODES + "digitalCapture")), "digital_source_type", "capture"),
    "google-xmp": (with_xmp("JPEG", 'photoshop:Credit="Made with Google AI"'), "google_ai_credit", "ai_generated"),
    "google-element": (
        with_xmp("WEBP", "", "<photoshop:Credit>Edited with Google AI</photoshop:Credit>"),
        "google_ai_credit",
        "ai_edited",
    ),
    "google-iim": (with_iim((80, "someone"), (110, "Made with Google AI")), "google_ai_credit", "ai_generated"),
    "tc260-xmp": (with_xmp("JPEG", f"TC260:AIGC='{AIGC}'"), "tc260_aigc", "ai_generated"),
    "tc260-escaped": (with_xmp("PNG", f'TC260:AIGC="{AIGC.replace(chr(34), "&quot;")}"'), "tc260_aigc", "ai_generated"),
    "tc260-suspected": (with_xmp("PNG", 'TC260:AIGC=\'{"Label":"3"}\''), "tc260_aigc", "ai_edited"),
    "tc260-exif": (
        with_exif("JPEG", {USER_COMMENT: user_comment(f'{{"AIGC":{AIGC}}}', "ascii")}),
        "tc260_aigc",
        "ai_generated",
    ),
    "tc260-text": (with_text("AIGC", AIGC), "tc260_aigc", "ai_generated"),
    "a1111-text": (with_text("parameters", A1111), "a1111_parameters", "ai_generated"),
    "a1111-ztxt": (with_text("parameters", A1111, deflated=True), "a1111_parameters", "ai_generated"),
    "a1111-itxt": (with_text("parameters", A1111 + " é", international=True), "a1111_parameters", "ai_generated"),
    "a1111-itxt-deflated": (
        with_text("parameters", A1111, international=True, deflated=True),
        "a1111_parameters",
        "ai_generated",
    ),
    **{
        f"a1111-exif-{fmt}-{encoding}": (
            with_exif(fmt, {USER_COMMENT: user_comment(A1111, encoding)}),
            "a1111_parameters",
            "ai_generated",
        )
        for fmt in ("JPEG", "WEBP", "AVIF")
        for encoding in ("utf-16-be", "utf-16-le", "ascii")
    },
    "a1111-comment": (with_segment(0xFE, A1111.encode()), "a1111_parameters", "ai_generated"),
    "a1111-xmp": (
        with_xmp("JPEG", "", f"<dc:description>{A1111}</dc:description>"),
        "a1111_parameters",
        "ai_generated",
    ),
    "comfy-prompt": (with_text("prompt", COMFY), "comfyui_graph", "ai_generated"),
    "comfy-workflow": (
        with_text("workflow", json.dumps({"nodes": [], "links": []}), deflated=True),
        "comfyui_graph",
        "ai_generated",
    ),
    "comfy-webp": (
        with_exif("WEBP", {MAKE: "workflow:" + json.dumps({"nodes": []}), MODEL: "prompt:" + COMFY}),
        "comfyui_graph",
        "ai_generated",
    ),
    "invoke": (
        with_text("invokeai_metadata", json.dumps({"positive_prompt": SECRET})),
        "invokeai_metadata",
        "ai_generated",
    ),
    "invoke-sd": (
        with_text("sd-metadata", json.dumps({"image": {"prompt": SECRET}})),
        "invokeai_metadata",
        "ai_generated",
    ),
    "invoke-dream": (with_text("Dream", f'"{SECRET}" -s 50 -S 42 -W 512'), "invokeai_metadata", "ai_generated"),
    "novelai": (with_text("Software", "NovelAI"), "novelai", "ai_generated"),
    "novelai-title": (with_text("Title", "NovelAI generated image"), "novelai", "ai_generated"),
    "fooocus": (with_text("fooocus_scheme", "fooocus"), "fooocus", "ai_generated"),
    "fooocus-exif": (
        with_exif(
            "JPEG", {USER_COMMENT: user_comment(json.dumps({"prompt": SECRET, "metadata_scheme": "fooocus"}), "ascii")}
        ),
        "fooocus",
        "ai_generated",
    ),
    "midjourney": (with_text("Description", JOB), "midjourney_job", "ai_generated"),
    "midjourney-exif": (with_exif("JPEG", {DESCRIPTION: JOB}), "midjourney_job", "ai_generated"),
    "midjourney-xmp": (
        with_xmp("WEBP", "", f"<dc:description>{JOB}</dc:description>"),
        "midjourney_job",
        "ai_generated",
    ),
    "midjourney-iim": (with_iim((120, JOB)), "midjourney_job", "ai_generated"),
    "grok": (
        with_exif("JPEG", {DESCRIPTION: "Signature: " + "Ab3+/=" * 12, ARTIST: "01234567-89ab-cdef-0123-456789abcdef"}),
        "grok_signature",
        "ai_generated",
    ),
    "software-exif": (with_exif("JPEG", {SOFTWARE: "Fooocus v2.5"}), "ai_software", "ai_generated"),
    "software-tool": (with_xmp("PNG", 'xmp:CreatorTool="Adobe Firefly"'), "ai_software", "ai_generated"),
    "software-element": (
        with_xmp("JPEG", "", "<xmp:CreatorTool>Draw Things</xmp:CreatorTool>"),
        "ai_software",
        "ai_generated",
    ),
    "software-description": (with_exif("WEBP", {DESCRIPTION: "Generated by DALL-E 3"}), "ai_software", "ai_generated"),
    "software-artist": (with_exif("JPEG", {ARTIST: "Midjourney"}), "ai_software", "ai_generated"),
    "software-iim": (with_iim((65, "Stable Diffusion XL")), "ai_software", "ai_generated"),
    "exif-in-png": (with_exif("PNG", {SOFTWARE: "ComfyUI"}), "ai_software", "ai_generated"),
    "raw-profile-exif": (raw_profile("exif", _exif_bytes({SOFTWARE: "InvokeAI"})), "ai_software", "ai_generated"),
    "raw-profile-iptc": (
        raw_profile("iptc", with_iim((110, "Made with Google AI"))[20:]),
        "google_ai_credit",
        "ai_generated",
    ),
    "camera": (with_exif("JPEG", {MAKE: "Canon", MODEL: "EOS R6"}), "camera", "capture"),
}

HARMLESS: dict[str, bytes] = {
    "recipe": with_text("Comment", "Steps: 3, then Seed: the tomatoes. Sampler: optional"),
    "recipe-in-exif": with_exif("JPEG", {DESCRIPTION: "Steps: 12 in all. Workflow: cut, sew. Job ID: 12"}),
    "caption-about-generators": with_exif("JPEG", {DESCRIPTION: "Poster of the Midjourney exhibition, made by hand"}),
    "photoshop": with_xmp(
        "JPEG", 'xmp:CreatorTool="Adobe Photoshop 26.0 (Windows)" photoshop:Credit="Google Street View"'
    ),
    "gimp": with_text("Software", "GIMP 2.10"),
    "prompt-without-graph": with_text("prompt", "{not a graph}"),
    "source-type-of-neither": with_xmp("JPEG", source_type(NEWSCODES + "screenCapture")),
    "source-type-as-word": with_xmp("JPEG", "", "<dc:title>On trainedAlgorithmicMedia</dc:title>"),
    "make-only": with_exif("JPEG", {MAKE: "Canon"}),
    "artist": with_exif("JPEG", {ARTIST: "Gemini Studios, Dalle & Sons"}),
    "aigc-without-label": with_text("Comment", "AIGC {about}"),
}
