"""A page in a browser, watched."""

import contextlib


@contextlib.contextmanager
def watched(browser, path, width=1280, scheme="light"):
    """Open a file; on leaving it, nothing else may have been requested, and nothing logged, raised or asked in a dialog."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    wrong, requests = [], []
    page.on("console", lambda message: wrong.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: wrong.append(f"dialog: {dialog.message}"))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(path.as_uri())
    yield page
    assert wrong == []
    assert requests == [path.as_uri()]
    page.close()
