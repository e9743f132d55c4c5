// Lays each pair over one another, with a divider to drag; without this they stand side by side.
for (const section of document.querySelectorAll("section")) {
  const sides = section.querySelector(".sides");
  if (!sides) continue;
  const pictures = [...section.querySelectorAll("img[data-picture]")].map((image) => ({
    src: image.src, alt: image.alt, name: image.dataset.picture,
  }));
  const divider = sides.querySelector(".divider");
  const move = () => sides.style.setProperty("--at", divider.value + "%");
  divider.addEventListener("input", move);
  const figures = sides.querySelectorAll("figure");
  section.querySelectorAll("select").forEach((select, side) => {
    select.addEventListener("change", () => {
      const chosen = pictures[select.value];
      const image = figures[side].querySelector("img");
      image.src = chosen.src;
      image.alt = chosen.alt;
      figures[side].querySelector("figcaption").textContent = chosen.name;
    });
    select.selectedIndex = side;
  });
  section.querySelector(".controls").hidden = false;
  sides.classList.add("live");
  move();
}
