use super::*;
use std::os::unix::fs::symlink;

struct Tree(tempfile::TempDir);

impl Tree {
    fn new(files: &[&str]) -> Self {
        let tree = Self(tempfile::tempdir().unwrap());
        for file in files {
            let path = tree.path(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, file).unwrap();
        }
        tree
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn link(&self, target: &str, name: &str) {
        symlink(target, self.path(name)).unwrap();
    }

    fn walk(&self, roots: &[&str], after: Option<Position>) -> Vec<(String, &'static str)> {
        let roots = roots.iter().map(|root| self.path(root)).collect();
        Walk::new(roots, after).map(|step| self.shown(&step)).collect()
    }

    fn shown(&self, step: &Step) -> (String, &'static str) {
        let path = step.position.path.strip_prefix(self.0.path()).unwrap();
        let path = path.to_string_lossy().trim_end_matches('/').to_owned();
        (path, step.outcome.as_ref().err().map_or("", |refusal| refusal.code))
    }
}

fn files(names: &[&str]) -> Vec<(String, &'static str)> {
    names.iter().map(|name| ((*name).to_owned(), "")).collect()
}

#[test]
fn walks_in_the_order_of_the_paths() {
    let tree = Tree::new(&["b/z", "b/a/x", "a", "c", "b.txt"]);
    assert_eq!(tree.walk(&[""], None), files(&["a", "b/a/x", "b/z", "b.txt", "c"]));
    assert_eq!(tree.walk(&["c", "b"], None), files(&["c", "b/a/x", "b/z"]));
}

#[test]
fn rehash_links_to_neighbours_are_no_places() {
    let tree = Tree::new(&["store/Root.crt", "certs/12345678.0", "certs/z.pem"]);
    tree.link("../store/Root.crt", "certs/Root.pem");
    tree.link("Root.pem", "certs/0123abcd.0");
    tree.link("../store/Root.crt", "certs/0123abce.1");
    tree.link("z.pem", "certs/ordinary.pem");
    let found = tree.walk(&["certs"], None);
    assert_eq!(found, files(&["certs/Root.pem", "certs/ordinary.pem", "certs/z.pem", "certs/12345678.0"]));
    // one that is named in the settings, or whose target is elsewhere, is a place
    assert_eq!(tree.walk(&["certs/0123abcd.0"], None), files(&["certs/0123abcd.0"]));
    fs::remove_file(tree.path("certs/Root.pem")).unwrap();
    assert!(tree.walk(&["certs"], None).contains(&("certs/0123abce.1".to_owned(), "")));
}

#[test]
fn links_never_lead_in_circles() {
    let tree = Tree::new(&["a/b/file", "c/file"]);
    tree.link("..", "a/b/up");
    tree.link("nowhere", "a/broken");
    tree.link("self", "a/self");
    tree.link("../c", "a/c");
    let found = tree.walk(&[""], None);
    let expected = [
        ("a/b/file", ""),
        ("a/b/up", "symlink_loop"),
        ("a/broken", "broken_symlink"),
        ("a/c/file", ""),
        ("a/self", "symlink_loop"),
    ];
    assert_eq!(found, expected.map(|(path, code)| (path.to_owned(), code)), "`c` was entered as `a/c`");
}

#[test]
fn many_links_to_one_directory_cost_one_visit() {
    let tree = Tree::new(&["d20/file"]);
    for level in 0..20 {
        fs::create_dir(tree.path(&format!("d{level}"))).unwrap();
        for name in ["x", "y"] {
            tree.link(&format!("../d{}", level + 1), &format!("d{level}/{name}"));
        }
    }
    assert_eq!(tree.walk(&["d0"], None).len(), 1);
}

#[test]
fn roots_inside_roots_are_walked_once_and_missed_when_absent() {
    let tree = Tree::new(&["a/b/file", "a/file"]);
    assert_eq!(tree.walk(&["a/b", "a", "a/file"], None), files(&["a/b/file", "a/file"]));
    let missing = |path: &str| (path.to_owned(), "path_missing");
    assert_eq!(tree.walk(&["a/b", "a/b/none", "none"], None)[1..], [missing("a/b/none"), missing("none")]);
    let roots = vec![tree.path("a"), tree.path("a/file")];
    let named: Vec<bool> = Walk::new(roots, None).map(|step| step.named).collect();
    assert_eq!(named, [false, true]);
}

#[test]
fn goes_on_after_every_position() {
    let tree = Tree::new(&["a/1", "a/b/2", "a/12345678.0", "c/3", "d"]);
    let roots = ["c", "a", "d", "none"];
    let whole = tree.walk(&roots, None);
    assert_eq!(whole.len(), 6);
    let positions: Vec<Position> =
        Walk::new(roots.iter().map(|root| tree.path(root)).collect(), None).map(|step| step.position).collect();
    for (count, position) in positions.into_iter().enumerate() {
        let position = Position::from_token(&position.to_token()).unwrap();
        assert_eq!(tree.walk(&roots, Some(position)), whole[count + 1..]);
    }
}

#[test]
fn goes_on_where_a_file_was_removed() {
    let tree = Tree::new(&["a/1", "a/2", "a/3"]);
    let position = Walk::new(vec![tree.path("a")], None).nth(1).unwrap().position;
    fs::remove_file(tree.path("a/2")).unwrap();
    assert_eq!(tree.walk(&["a"], Some(position)), files(&["a/3"]));
}

#[test]
fn foreign_tokens_are_not_positions() {
    for token in ["", "x", "1", "x:00", "1:zz", "-1:2f"] {
        assert_eq!(Position::from_token(token), None, "{token}");
    }
}

#[test]
fn knows_rehashed_names() {
    let cases = [
        ("0123abcd.0", true),
        ("0123abcd.12", true),
        ("0123abcd.r0", true),
        ("0123ABCD.0", false),
        ("0123abc.0", false),
        ("0123abcd.", false),
        ("0123abcd.x", false),
        ("0123abcd.0.bak", false),
        ("0123abcd", false),
    ];
    for (name, expected) in cases {
        assert_eq!(is_rehashed(OsStr::new(name)), expected, "{name}");
    }
}
