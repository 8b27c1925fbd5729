// One part's pictures: loaded and decoded in full before any of them is shown.

const template = document.getElementById("pictures");

/** Return the figures of a part, ready to be shown at once; throws when a picture is not available. */
export async function load(part) {
  // Imported, because pictures of the template's own document are never loaded.
  const figures = document.importNode(template.content, true);
  const images = [...figures.querySelectorAll("img")];
  for (const image of images) {
    // With "sync" the browser shows the picture in the same instant as the words beside it.
    image.decoding = "sync";
    image.src = `part/${part.id}/${image.className}.${image.className === "heat" ? "png" : "jpg"}`;
  }
  images[0].alt = `Frame ${part.frame} of ${part.camera}`;
  await Promise.all(images.map((image) => image.decode()));
  const ratio = images[0].naturalWidth / images[0].naturalHeight;
  for (const frame of figures.querySelectorAll(".frame")) frame.style.setProperty("--ratio", ratio);
  const outline = (part.outlines ?? []).map(polygon).join("");
  for (const path of figures.querySelectorAll("path")) path.setAttribute("d", outline);
  return figures;
}

function polygon(points) {
  return `M${points.map(([x, y]) => `${x},${y}`).join("L")}Z`;
}
