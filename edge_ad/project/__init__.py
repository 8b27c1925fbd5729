"""A product's pictures on disk, and the long work on them, as the Studio and scripts use them.

folder = CategoryFolder.create("cable", Path("datasets"))
taken = take_pictures(Path("pictures.zip"), folder)
queue = Queue(Path("datasets/.edge-ad-studio/jobs"))
"""
