"""A real browser for tests: starting it, screen sizes, scripts that observe a page from inside, and contrasts."""

import re
from typing import Any

from playwright.sync_api import Page

from tests.study_subjects import Server

ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
)
READABLE = 4.5
"""WCAG's smallest contrast of body text, level AA."""

WATCH = """
// Independent of the page's own measurement: whenever something changes, looks whether images can be seen.
window.exposures = []; window.trouble = [];
addEventListener("error", (event) => window.trouble.push(String(event.message)));
addEventListener("securitypolicyviolation", (event) => window.trouble.push(event.violatedDirective));
(() => {
  let shown = null;
  const isSeen = (image) => getComputedStyle(image).visibility === "visible";
  const look = () => { // in the same frame in which the page changes: the timeline has that frame's time stamp
    const now = document.timeline.currentTime, seen = [...document.querySelectorAll("#pair img")].filter(isSeen);
    if (seen.length && !shown) {
      const whole = seen.every((image) => image.complete && image.naturalWidth > 0);
      shown = {start: now, frames: [now], count: seen.length, whole, scrolled: outside(seen)};
    } else if (!seen.length && shown) {
      window.exposures.push({...shown, end: now, frames: [...shown.frames, now]});
      shown = null;
    }
  };
  const tick = (now) => {
    if (shown && now > shown.frames.at(-1)) shown.frames.push(now);
    requestAnimationFrame(tick);
  };
  const outside = (seen) => seen.some((image) => {
    const box = image.getBoundingClientRect();
    return box.top < 0 || box.left < 0 || box.bottom > innerHeight || box.right > innerWidth || box.width < 60;
  });
  addEventListener("DOMContentLoaded", () => {
    const pair = document.querySelector("#pair"), all = {attributes: true, childList: true, subtree: true};
    if (pair) new MutationObserver(look).observe(pair, all);
    requestAnimationFrame(tick);
  });
})();
"""

PHONE: dict[str, Any] = {
    "viewport": {"width": 360, "height": 640},
    "has_touch": True,
    "is_mobile": True,
    "device_scale_factor": 2,
}
DESKTOP: dict[str, Any] = {"viewport": {"width": 1280, "height": 800}}


def luminance(page: Page, selector: str, name: str) -> float:
    """WCAG's relative luminance of an element's computed colour."""
    text = page.locator(selector).first.evaluate(f"element => getComputedStyle(element).{name}")
    channels = [int(value) / 255 for value in re.findall(r"\d+", text)[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: float, second: float) -> float:
    """WCAG's contrast of two luminances, from 1 to 21."""
    return (max(first, second) + 0.05) / (min(first, second) + 0.05)


def begin(page: Page, server: Server, name: str) -> None:
    """Open a study, agree and start."""
    page.goto(f"{server.address}?participant={name}")
    page.check("#agree")
    page.click("#start")
    page.click("#go")
