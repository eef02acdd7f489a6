"""Files that are often taken for a checkpoint, by their first bytes."""

HEAD = 512  # bytes that tell what a file is

_LFS = b"version https://git-lfs"
_PAGES = (b"<!doctype html", b"<html", b"<head", b"<?xml")
# first bytes -> what the file is, and what to do
_OTHERS = {
    b"\x1f\x8b": "is compressed with gzip; unpack it first: gunzip FILE",
    b"BZh": "is compressed with bzip2; unpack it first: bunzip2 FILE",
    b"\xfd7zXZ": "is compressed with xz; unpack it first: unxz FILE",
    b"\x28\xb5\x2f\xfd": "is compressed with zstd; unpack it first: unzstd FILE",
    b"7z\xbc\xaf\x27\x1c": "is a 7z archive; unpack it and give the checkpoint in it",
    b"Rar!": "is a RAR archive; unpack it and give the checkpoint in it",
    b"\x89HDF": "is an HDF5 file (Keras); give the PyTorch weights of the model",
    b"GGUF": "is a GGUF file; give the PyTorch weights of the model",
    b"PK\x03\x04": "is a zip file, as torch.save writes them, without its end: it is cut short;"
    " fetch it again",
}


def not_a_checkpoint(head: bytes) -> str:
    """What a file is that is no checkpoint, and what to do; "" where its first bytes do not say.

    Args:
        head: the first `HEAD` bytes of the file.
    """
    if not head:
        return "is empty (0 bytes): the download or the disk failed; fetch it again"
    if head.startswith(_LFS):
        return (
            "is a Git LFS pointer, not the file itself: run `git lfs pull` in its repository, or"
            " fetch the file from the repository's web page"
        )
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith(_PAGES):
        return (
            "is a web page (HTML), not a checkpoint: its address needs a login or leads to a page"
            " about the file; fetch the file itself (on Hugging Face: /resolve/, not /blob/)"
        )
    if head[257:262] == b"ustar":
        return "is a tar archive; unpack it and give the checkpoint in it"
    if text.startswith((b"{", b"[")):
        return "is a JSON file, which holds no tensors; give the file with the weights"
    return next((what for start, what in _OTHERS.items() if head.startswith(start)), "")
