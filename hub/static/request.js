// What was ticked on the request form, and about how large it will be.
function bytes(number) {
  for (const [factor, unit] of [[1e9, "GB"], [1e6, "MB"], [1e3, "kB"]]) {
    if (number >= factor) return `${(number / factor).toPrecision(3)} ${unit}`;
  }
  return `${number} bytes`;
}

export function sumRequest(form) {
  const line = form.querySelector("#chosen");
  if (!line) return;
  const before = line.textContent;
  const sum = () => {
    const ticked = [...form.querySelectorAll("input[name=variant]:checked")];
    const total = ticked.reduce((all, box) => all + Number(box.dataset.bytes), 0);
    line.textContent = ticked.length
      ? `${ticked.length} ${ticked.length === 1 ? "variant" : "variants"}, about ${bytes(total)}`
      : before;
  };
  form.addEventListener("change", sum);
  form.addEventListener("refreshed", sum);
  sum();
}
