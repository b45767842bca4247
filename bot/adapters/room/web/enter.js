// A link may carry a token behind its #, which no browser sends anywhere: it is put into the field, and taken out of sight.
const given = decodeURIComponent(location.hash.slice(1));
if (given) {
  document.querySelector("#token").value = given;
  document.querySelector("button.primary").focus();
  history.replaceState(null, "", location.pathname + location.search);
}
