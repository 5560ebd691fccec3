"""The numbers in the paper's Tables 1-5 (Saharia et al., arXiv:2104.07636v2), exactly as printed."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class PaperTable:
    """One table: a row per method, a column per metric."""

    number: int
    section: str
    """The section of the paper that contains the table."""
    what: str
    sizes: tuple[int, int]
    """Side lengths of inputs and outputs, in pixels."""
    data: str
    """The data that the paper trained and evaluated on."""
    parameters: str
    """Number of parameters of the paper's network (Table A.1)."""
    metrics: dict[str, str]
    """Our name of a metric -> the table's, with an arrow towards better values."""
    rows: dict[str, tuple[str, ...]]
    """Method -> its numbers as printed, in the order of metrics; "–" if there is none."""


def _fid_50k_table(number: int, what: str, data: str, rows: dict[str, str]) -> PaperTable:
    """A table of section 4.3: one FID-50k per method, of class-conditional 256x256 images."""
    return PaperTable(
        number=number,
        section="4.3",
        what=what,
        sizes=(64, 256),
        data=data,
        parameters="a base model and 625M",
        metrics={"distance": "FID-50k ↓"},
        rows={method: (fid,) for method, fid in rows.items()},
    )


TABLES = (
    PaperTable(
        number=1,
        section="4.2.1",
        what="faces",
        sizes=(16, 128),
        data="FFHQ for training, CelebA-HQ for evaluation",
        parameters="550M",
        metrics={"psnr": "PSNR ↑", "ssim": "SSIM ↑", "consistency": "Consistency, ×10⁻⁵ ↓"},
        rows={
            "PULSE": ("16.88", "0.44", "161.1"),
            "FSRGAN": ("23.01", "0.62", "33.8"),
            "Regression": ("23.96", "0.69", "2.71"),
            "SR3": ("23.04", "0.65", "2.68"),
        },
    ),
    PaperTable(
        number=2,
        section="4.2.1",
        what="natural images",
        sizes=(64, 256),
        data="ImageNet 1K, evaluated on its 50,000 validation images",
        parameters="625M",
        metrics={"distance": "FID ↓", "inception_score": "IS ↑", "psnr": "PSNR ↑", "ssim": "SSIM ↑"},
        rows={
            "Reference": ("1.9", "240.8", "–", "–"),
            "Regression": ("15.2", "121.1", "27.9", "0.801"),
            "SR3": ("5.2", "180.1", "26.4", "0.762"),
        },
    ),
    PaperTable(
        number=3,
        section="4.2.1",
        what="natural images, classified",
        sizes=(64, 256),
        data="the first 1,000 images of ImageNet's validation set, classified by ResNet-50",
        parameters="625M",
        metrics={"top_1_error": "Top-1 error ↓", "top_5_error": "Top-5 error ↓"},
        rows={
            "Baseline": ("0.252", "0.080"),
            "DRCN": ("0.477", "0.242"),
            "FSRCNN": ("0.437", "0.196"),
            "PsyCo": ("0.454", "0.224"),
            "ENet-E": ("0.449", "0.214"),
            "RCAN": ("0.393", "0.167"),
            "Regression": ("0.383", "0.173"),
            "SR3": ("0.317", "0.120"),
        },
    ),
    _fid_50k_table(
        4,
        "natural images of a class, from noise",
        data="50,000 samples of a class-conditional cascade against ImageNet",
        rows={
            "VQ-VAE-2": "38.1",
            "BigGAN (truncation 1.0)": "7.4",
            "BigGAN (truncation 1.5)": "11.8",
            "SR3 (two stages)": "11.3",
        },
    ),
    _fid_50k_table(
        5,
        "ablations",
        data="50,000 samples of a class-conditional cascade against ImageNet, its second stage changed",
        rows={
            "SR3, no augmentation": "13.1",
            "SR3 with Gaussian blur": "11.3",
            "SR3, L2": "11.8",
            "SR3, L1": "11.3",
        },
    ),
)
ORDERINGS = (
    ("psnr", "Regression ahead in PSNR", "23.96 > 23.04, 27.9 > 26.4"),
    ("ssim", "Regression ahead in SSIM", "0.69 > 0.65, 0.801 > 0.762"),
    ("consistency", "SR3 slightly ahead in consistency", "2.68 < 2.71"),
    ("distance", "SR3 ahead in FID", "5.2 < 15.2"),
)
"""How Regression and SR3 compare in Tables 1 and 2: metric, finding, the numbers."""
