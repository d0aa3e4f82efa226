"""The page that shows pictures with their text."""

import re
from pathlib import Path

from flamingo.data.preview import write_preview
from flamingo.data.stream import Stream
from flamingo.data.text_layout import DecoderText
from mmdata.training_view.sequence import MediaTokenizer

from .conftest import config_of, make_page, write_pages


def test_pictures_stand_at_their_tags(tmp_path: Path, tokenizer: MediaTokenizer) -> None:
    texts = ["Before.", "<script>alert('x')</script> & <image>", "After."]
    pages = write_pages(tmp_path / "p", [[make_page(0, [1, 2], texts=texts)]])
    batches = Stream(config_of(pages.folder), tokenizer, validation=True).batches()
    path = tmp_path / "preview.html"
    write_preview(batches, DecoderText(tokenizer), path)
    page = path.read_text()
    assert page.count('src="data:image/png;base64,') == 2
    assert "<script" not in page
    assert "&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt; &amp; &lt;image&gt;" in page
    assert "without a picture" not in page
    assert "000000000000" in page
    assert str(pages.path(0)) in page
    body = re.sub(r"<img[^>]*>", "[picture]", page.partition('<div class="text">')[2])
    order = [body.index(word) for word in ("Before.", "[picture]", "script", "After.")]
    assert order == sorted(order)
    assert '<span class="masked">Before.</span>' in body
    assert re.search(r'<span class="learned">[^<]*After\.&lt;\|endofchunk\|&gt;</span>', body)
    assert "http" not in page
