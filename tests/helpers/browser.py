"""Pages as a headless browser shows them."""


def visit(browser, file, scheme, read, widths):
    """Messages, requests, and what the script `read` measures, at each width in pixels."""
    messages, requests, views = [], [], []
    for width in widths:
        screen = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 900})
        screen.on("console", lambda message: messages.append(message.text))
        screen.on("pageerror", lambda error: messages.append(str(error)))
        screen.on("request", lambda request: requests.append(request.url))
        screen.goto(file.as_uri())
        screen.wait_for_load_state("networkidle")
        views.append(screen.evaluate(read))
        screen.close()
    return messages, [url for url in requests if not url.startswith("data:")], views


def contrast(first, second):
    """The contrast ratio of two colours, by WCAG 2.2."""
    least, most = sorted(luminance(color) for color in (first, second))
    return (most + 0.05) / (least + 0.05)


def luminance(color):
    linear = [part / 255 / 12.92 if part <= 10 else ((part / 255 + 0.055) / 1.055) ** 2.4 for part in color]
    return sum(part * share for part, share in zip(linear, (0.2126, 0.7152, 0.0722), strict=True))
