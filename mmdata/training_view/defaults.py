"""What training uses of a document where nothing else is said; the standard library only.

The trainer's flags, the data stream, the forecast and the report take these defaults from here.
"""

#: Images whose similarity to their sentence is below are left out (a cosine).
MIN_SIMILARITY = 0.24
#: Images whose file is smaller are left out, in bytes.
MIN_IMAGE_BYTES = 11_000
#: Images of a document that are used at most.
MAX_IMAGES = 6
#: Documents with fewer images are left out.
MIN_IMAGES = 1
#: Share of the documents with a single image that is kept.
KEEP_SINGLE_IMAGE = 0.5
#: Tokens of an interleaved document, and of a caption, at most.
MAX_DOCUMENT_TOKENS = 256
MAX_CAPTION_TOKENS = 32
