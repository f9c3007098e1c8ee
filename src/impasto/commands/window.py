"""A window that shows pictures as they come, by Tk, which comes with Python."""

from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8

_NO_SCREEN = (
    "no window can be opened here ({}); `impasto demo` serves a page that paints the camera in a "
    "browser"
)


class Window:
    """A window with a picture and a line of text below it.

    Args:
        title: its title.
        on_key: called with the name of each key that is pressed, as Tk names it, such as q or Up.

    Attributes:
        closed: whether the user has closed it.

    Raises:
        ValueError: there is no screen, or Python was built without Tk.
    """

    def __init__(self, title: str, on_key: Callable[[str], None]) -> None:
        try:
            import tkinter
        except ImportError:
            raise ValueError(_NO_SCREEN.format("this Python has no Tk")) from None
        try:
            self._root = tkinter.Tk()
        except tkinter.TclError as error:
            raise ValueError(_NO_SCREEN.format(str(error).splitlines()[0])) from None
        self._image = tkinter.PhotoImage(master=self._root)
        self._text = tkinter.Label(self._root, anchor="w")
        tkinter.Label(self._root, image=self._image, borderwidth=0).pack()
        self._text.pack(fill="x")
        self.closed = False
        self._root.title(title)
        self._root.resizable(False, False)
        self._root.protocol("WM_DELETE_WINDOW", self.close)
        self._root.bind("<Key>", lambda event: on_key(event.keysym))

    def show(self, picture: UInt8[np.ndarray, "h w 3"], text: str) -> None:
        """Show a picture and a line of text, and handle the keys pressed since the last call."""
        height, width = picture.shape[:2]
        # Binary PPM: Tk reads it without another library.
        self._image.configure(data=b"P6 %d %d 255 " % (width, height) + picture.tobytes())
        self._text.configure(text=text)
        self._root.update()
        if self.closed:
            self._root.destroy()

    def close(self) -> None:
        """Close the window after the present picture."""
        self.closed = True
