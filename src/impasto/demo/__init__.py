"""The demo: a page that paints photos in the browser, and a server for this machine only.

The page, `index.html`, works on any static server. It needs the network beside it, as
`gallery.onnx`, and the files of ONNX Runtime Web in a folder `runtime/`. Photos never leave the
browser.
"""
