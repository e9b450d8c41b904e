"""Makes the pictures of this folder with Pillow; run it to make them again: python3 make.py"""
from PIL import Image

w, h = 83, 61
photo = Image.new("RGB", (w, h))
photo.putdata([((x * 3) % 256, (y * 4) % 256, (x * y) % 256) for y in range(h) for x in range(w)])

photo.save("baseline-420.jpg", quality=85, subsampling=2)
photo.save("baseline-444.jpg", quality=85, subsampling=0)
photo.save("baseline-422.jpg", quality=85, subsampling=1)
photo.save("optimised.jpg", quality=92, subsampling=2, optimize=True)
photo.save("restart.jpg", quality=85, subsampling=2, restart_marker_blocks=2)
photo.save("restart-rows.jpg", quality=85, subsampling=0, restart_marker_rows=1)
photo.save("progressive.jpg", quality=85, subsampling=2, progressive=True)
photo.save("progressive-restart.jpg", quality=85, subsampling=0, progressive=True, restart_marker_blocks=3)
photo.convert("L").save("grey.jpg", quality=85)
photo.convert("L").save("progressive-grey.jpg", quality=85, progressive=True)
photo.convert("CMYK").save("cmyk.jpg", quality=85)
photo.convert("P").save("palette.tiff")
photo.convert("LAB").save("lab.tiff")
photo.save("jpeg-in.tiff", compression="jpeg")
photo.save("zstd.tiff", compression="zstd")
photo.convert("1").save("g3.tiff", compression="group3")
photo.convert("LA").resize((8, 8)).save("grey-alpha.tiff")
photo.convert("F").resize((8, 8)).save("grey-float.tiff")
photo.save("pages.tiff", save_all=True, append_images=[photo, photo])
photo.save("lossy.webp", quality=80)
