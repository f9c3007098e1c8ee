"""The demo: a page that paints photos in the browser, and a small server for it on this machine only.

The page (`index.html`) needs two things beside it, and no server of ours: the network as `gallery.onnx`, and the files
of ONNX Runtime Web in `runtime/`. Photos never leave the browser.
"""
